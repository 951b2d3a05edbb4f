"""What features mean in words, and whether matched features mean the same.

`descriptions/`: what a description is, and how it is made of what a feature activates on.
`neuronpedia/`: descriptions downloaded from Neuronpedia.  `judges/`: what a judge is, the three kinds (a
person in `judge.py`, `embedding.py`, `llm.py`), which pairs are judged and what follows from the labels
(`experiments.py`), and where answers are kept (`journal.py`).  `explaining.py`: descriptions by a language
model.  `chat/`: the endpoint that its judge and its explainer talk through, and what that costs.
"""
