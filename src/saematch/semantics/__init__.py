"""What features mean in words, and whether matched features mean the same.

`descriptions/`: what a description is and where it comes from: a feature's max-activating examples and top
tokens, or a language model that explains them.  `neuronpedia/`: descriptions downloaded from Neuronpedia.
`judges/`: what a judge is, the three kinds (`embedding.py`, `llm.py`, `human.py`), which pairs are judged
(`experiments.py`), where answers are kept (`journal.py`), and what follows from the labels (`agreement.py`).
`chat/`: the endpoint that the language model's judge and explainer talk through, and what it costs.
"""
