"""Which language model a stage runs, and on which text."""

from dataclasses import dataclass

from saematch.settings import Config, parse_names, setting


@dataclass(frozen=True)
class ModelSettings(Config):
    """What every stage's config says of its model and of the text that it reads."""

    model: str | None = setting(
        None, "Name on the Hub, path, or smollm2.", unset="what the SAEs record"
    )
    device: str | None = setting(None, "cpu or cuda.", unset="cuda where there is one")
    dtype: str = setting("float32", "Of the language model.", choices=("float32", "bfloat16"))
    attention: str | None = setting(
        None, "Attention implementation of transformers, e.g. sdpa.", unset="transformers chooses"
    )
    any_model: bool = setting(False, "Take a model of another name than SAEs record.")
    batch_tokens: int = setting(2048, "Padded tokens in one pass of the model.", least=1)
    corpora: tuple[str, ...] = setting(
        ("web", "wiki", "code"),
        "Among web,wiki,code, or files and folders of your own text.",
        parse=parse_names,
    )
