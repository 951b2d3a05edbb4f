"""Whether a language model is the one that SAEs were trained on."""

from collections.abc import Sequence

from saematch.errors import InputError, UnsupportedError
from saematch.loading.model_names import same_model
from saematch.models import LanguageModel
from saematch.sae import SAE


def check_belongs(model: LanguageModel, saes: Sequence[SAE], any_model: bool = False) -> list[str]:
    """Notes on what differs but may be meant; raises InputError where SAEs and model cannot go
    together: width, depth, another model's name (unless `any_model`), SAEs of centred weights."""
    notes: list[str] = []
    for sae in saes:
        what = sae.reference or f"the SAE of layer {sae.key}"
        if sae.d_model != model.d_model:
            raise InputError(
                f"expected a model of d_model {sae.d_model} for {what}, got {model.d_model} in "
                f"{model.name}; name the model that the SAEs were trained on"
            )
        if sae.layer >= model.n_blocks:
            raise InputError(
                f"expected a block {sae.layer} for {what}, got {model.n_blocks} blocks in "
                f"{model.name}; name the model that the SAEs were trained on"
            )
        if sae.centred:
            raise UnsupportedError(
                f"expected SAEs of the model's own residual stream, got {what}, which was trained on "
                "centred weights (TransformerLens); saematch evaluates uncentred models alone"
            )
        if sae.model_name and not any_model and not same_model(sae.model_name, model.name):
            raise InputError(
                f"expected {sae.model_name}, on which {what} was trained, got {model.name}; "
                "name that model, or allow any model (any_model) if they are the same weights"
            )
        recorded = sae.metadata.get("model_weights_sha256")
        if recorded and model.weights_sha256 != recorded:
            found = "of others" if model.weights_sha256 else "not known"
            notes.append(
                f"{sae.key} was trained on weights of sha256 {str(recorded)[:12]}…, those of "
                f"{model.name} are {found}: numbers may differ a little"
            )
        trained_bos = sae.metadata.get("bos_token_id")
        if trained_bos is not None and trained_bos != model.bos_token_id:
            notes.append(
                f"{sae.key} was trained with BOS {trained_bos}, the tokenizer's is {model.bos_token_id}"
            )
    if model.bos_token_id is None:
        notes.append("the tokenizer has no BOS: the first token of each document takes its part")
    return [*model.notes, *notes]
