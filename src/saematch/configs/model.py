"""Which language model a stage runs, and on which text."""

from dataclasses import dataclass

from saematch.settings import Config, parse_names, setting


@dataclass(frozen=True)
class ModelSettings(Config):
    """What every stage's config says of its model and of the text that it reads."""

    model: str | None = setting(
        None, "Language model: name on the Hub, path or smollm2.", unset="the one the SAEs record"
    )
    device: str | None = setting(None, "cpu or cuda.", unset="cuda if available")
    dtype: str = setting(
        "float32", "Precision of the language model.", choices=("float32", "bfloat16")
    )
    attention: str | None = setting(
        None,
        "Attention implementation of transformers, e.g. sdpa.",
        unset="what transformers chooses",
    )
    any_model: bool = setting(False, "Accept a model of another name than the SAEs record.")
    batch_tokens: int = setting(2048, "Tokens in one pass of the model, padding included.", least=1)
    corpora: tuple[str, ...] = setting(
        ("web", "wiki", "code"),
        "Text: any of web,wiki,code, or files and folders of your own.",
        parse=parse_names,
    )
