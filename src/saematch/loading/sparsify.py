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
from saematch.loading.configs import Field, check_activation_tensors, check_sizes, read_settings
from saematch.sae import SAE

NAME = "sparsify"
CONFIGS = ("cfg.json",)

NOT_ITS_INPUT = ("embed_skip", "gram_lookup")
"""Settings of SAEs that also read which token stands there."""
SCHEMA = {
    "activation": Field(str, "topk"),
    **dict.fromkeys(("d_in", "expansion_factor", "k"), Field(int, low=1)),
    "num_latents": Field(int, 0, low=0),
    **dict.fromkeys(("signed", "transcode", "skip_connection", *NOT_ITS_INPUT), Field(bool, False)),
}


def recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.has("cfg.json") and checkpoint.tensors.keys() >= {"encoder.weight", "W_dec"}


def load(checkpoint: Checkpoint) -> SAE:
    config = checkpoint.config("cfg.json")
    layer, tensors, where = checkpoint.layer_read(), checkpoint.tensors, checkpoint.location
    settings = read_settings(config, SCHEMA, f"cfg.json of {where}")
    if "W_skip" in tensors:
        raise UnsupportedError(f"expected a residual SAE, got a transcoder in {where}")
    for name in NOT_ITS_INPUT:
        if settings[name]:
            raise UnsupportedError(
                f"expected an SAE of its input alone in {where}, got '{name}', which reads tokens too"
            )
    activation = "signed topk" if settings["signed"] else settings["activation"]
    if activation != "topk":
        raise UnsupportedError(
            f"expected activation 'topk' (after ReLU) in {where}, got '{activation}', which has no "
            f"canonical form"
        )
    draft = draft_of(tensors, where, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    check_sizes(settings, draft.W_dec, "encoder.weight", where)
    check_activation_tensors(tensors, (), "topk", where)
    if settings["k"] is None:
        raise InputError(f"expected a whole number 'k' in cfg.json of {where}, got none")
    draft = fold_input_bias(replace(draft, activation="topk", k=settings["k"]))
    model = checkpoint.config_above("config.json").get("model")
    model = model if isinstance(model, str) else None
    return finish(draft, checkpoint, NAME, layer, model_name=model, metadata=config)
