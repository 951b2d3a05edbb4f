"""EleutherAI sparsify: `<hookpoint>/cfg.json`, `sae.safetensors`.

Definition (sparsify/sparse_coder.py): pre = relu((x - b_dec) encoder.weightᵀ + encoder.bias);
f = the k largest of pre; x̂ = f W_dec + b_dec.  b_dec is always subtracted, whatever
`normalize_decoder` says; `num_latents: 0` means expansion_factor · d_in.  (SAELens 6.54 transposes
W_dec, takes 0 latents literally and drops the subtraction: it is no reference for this format.)
"""

from dataclasses import replace

from saematch.errors import InputError, UnsupportedError
from saematch.loading.canonical import draft_of, finish, fold_input_bias
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import (
    check_activation_tensors,
    check_expansion,
    check_stated,
    flag,
    read_settings,
    text,
    whole,
)
from saematch.loading.tensors import take
from saematch.sae import SAE

NAME = "sparsify"
CONFIGS = ("cfg.json",)

SCHEMA = {
    "activation": text("topk"),
    "d_in": whole(1),
    "expansion_factor": whole(1),
    "num_latents": whole(0, 0),
    "k": whole(1),
    "signed": flag(),
    "transcode": flag(),
    "skip_connection": flag(),
    "embed_skip": flag(),
    "gram_lookup": flag(),
}


def recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.has("cfg.json") and checkpoint.tensors.keys() >= {"encoder.weight", "W_dec"}


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a sparsify checkpoint."""
    config = checkpoint.config("cfg.json")
    tensors, where = checkpoint.tensors, checkpoint.location
    layer = checkpoint.layer_read()
    settings = read_settings(config, SCHEMA, f"cfg.json of {where}")
    if "W_skip" in tensors:
        raise UnsupportedError(f"expected a residual SAE, got a transcoder in {where}")
    for name in ("embed_skip", "gram_lookup"):
        if settings[name]:
            raise UnsupportedError(
                f"expected an SAE of its input alone in {where}, got '{name}', which reads tokens too"
            )
    activation = settings["activation"]
    if activation != "topk" or settings["signed"]:
        found = "signed topk" if settings["signed"] else activation
        raise UnsupportedError(
            f"expected activation 'topk' (after ReLU) in {where}, got '{found}', which has no "
            f"canonical form"
        )
    encoder = take(tensors, "encoder.weight", where, dimensions=2)
    d_sae, d_model = encoder.shape
    check_stated(settings, {"d_in": (d_model, "encoder.weight")}, where)
    if settings["num_latents"]:
        check_stated(settings, {"num_latents": (d_sae, "encoder.weight")}, where)
    else:
        check_expansion(settings["expansion_factor"], d_model, d_sae, where)
    check_activation_tensors(tensors, (), "topk", where)
    k = settings["k"]
    if k is None:
        raise InputError(f"expected a whole number 'k' in cfg.json of {where}, got none")
    b_enc = take(tensors, "encoder.bias", where, shape=(d_sae,))
    W_dec = take(tensors, "W_dec", where, shape=(d_sae, d_model))
    b_dec = take(tensors, "b_dec", where, shape=(d_model,))
    draft = replace(draft_of(where, encoder.T, b_enc, W_dec, b_dec), activation="topk", k=k)
    model = checkpoint.config_above("config.json").get("model")
    return finish(
        fold_input_bias(draft),
        layer=layer,
        name="",
        reference=checkpoint.reference,
        checkpoint_format=NAME,
        model_name=model if isinstance(model, str) else None,
        hook_name=None,
        metadata=config,
    )
