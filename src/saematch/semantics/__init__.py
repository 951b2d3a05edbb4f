"""What features mean in words, and whether matched features mean the same.

`descriptions.py` what a description is; `describing.py` (over `firing.py` and `summaries.py`),
`neuronpedia.py` and `explaining.py` where they come from; `judging.py` what a judge is;
`embedding_judge.py`, `llm_judge.py`, `human_judge.py` the three kinds; `chat.py` what the language model's
judge and explainer talk through, with `asking.py`, `spending.py`, `refusals.py` and `reply_bodies.py` behind
it; `rubric.py` and `label_reading.py` what the judge is told and what is read from its replies;
`experiments.py` which pairs are judged; `journal.py` where answers are kept; `verdicts.py` what follows
from the labels.
"""
