"""What features mean in words, and whether matched features mean the same.

`descriptions.py` what a description is; `neuronpedia.py`, `contexts.py` and `explaining.py` where they
come from; `judging.py` what a judge is; `embedding_judge.py`, `llm_judge.py`, `human_judge.py` the three
kinds; `experiments.py` which pairs are judged; `verdicts.py` what follows from the labels.
"""
