"""What matchings are worth on a language model: interventions, sums of documents, measures with intervals."""
