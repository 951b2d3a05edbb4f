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
from saematch.loading.tensors import take
from saematch.sae import SAE

NAME = "sparsify"
CONFIGS = ("cfg.json",)


def recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.has("cfg.json") and checkpoint.tensors.keys() >= {"encoder.weight", "W_dec"}


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a sparsify checkpoint."""
    config = checkpoint.config("cfg.json")
    tensors, where = checkpoint.tensors, checkpoint.location
    layer = checkpoint.layer_read()
    if "W_skip" in tensors:
        raise UnsupportedError(f"needed a residual SAE, found a transcoder in {where}")
    activation = str(config.get("activation", "topk"))
    if activation != "topk" or config.get("signed"):
        found = "signed topk" if config.get("signed") else activation
        raise UnsupportedError(
            f"needed activation 'topk' (after ReLU) in {where}, found '{found}', which has no "
            f"canonical form"
        )
    encoder = take(tensors, "encoder.weight", where, dimensions=2)
    d_sae, d_model = encoder.shape
    stated = config.get("num_latents") or config.get("expansion_factor", 0) * config.get("d_in", 0)
    if (stated and stated != d_sae) or config.get("d_in", d_model) != d_model:
        raise InputError(
            f"needed encoder.weight [{stated}, {config.get('d_in')}] as cfg.json of {where} says, "
            f"found {[d_sae, d_model]}"
        )
    k = config.get("k")
    if not isinstance(k, int) or isinstance(k, bool):
        raise InputError(f"needed a whole number 'k' in cfg.json of {where}, found {k!r}")
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
