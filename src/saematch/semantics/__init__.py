"""What features mean in words, and whether matched features mean the same.

`descriptions.py` what a description is; `neuronpedia.py`, `contexts.py` and `explaining.py` where they
come from; `judging.py` what a judge is; `embedding_judge.py`, `llm_judge.py`, `human_judge.py` the three
kinds; `chat.py` what the language model's judge and explainer talk through, with `asking.py`, `spending.py`,
`refusals.py` and `reply_bodies.py` behind it; `rubric.py` and `label_reading.py` what the judge is told
and what is read from its replies; `experiments.py` which pairs are judged; `verdicts.py` what follows
from the labels.
"""
