"""Every dictionary of SAELens's registry is decided, and docs/registry.md says how."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from saematch.errors import UnsupportedError
from saematch.loading import load_suite, registry, registry_table
from saematch.loading.registry_table import COMMAND, Decision, decisions

PAGE = Path(__file__).parents[2] / "docs" / "registry.md"

pytest.importorskip("yaml")


@cache
def made() -> tuple[Decision, ...]:
    return decisions()


def test_the_page_is_what_the_code_decides() -> None:
    """With another sae-lens than the page's, only what both know is compared: what each release
    reads and whether it loads.  Counts and layers grow from version to version."""
    text = PAGE.read_text(encoding="utf-8")
    versions = re.search(r"with sae-lens (\S+):", text)
    assert versions, f"docs/registry.md names no version; run: {COMMAND}"
    if versions[1] == registry_table.installed_version():
        assert text == registry_table.page(made()), (
            f"docs/registry.md is out of date; run: {COMMAND}"
        )
        return
    written = [line for line in text.splitlines() if line.startswith("| `")]
    ours = registry_table.rows(made())
    both = {_release(row) for row in written} & {_release(row) for row in ours}
    assert len(both) > 50
    assert {_said(row) for row in written if _release(row) in both} == {
        _said(row) for row in ours if _release(row) in both
    }, f"docs/registry.md (of sae-lens {versions[1]}) is out of date; run: {COMMAND}"


def _release(row: str) -> str:
    return row.split("`")[1]


def _said(row: str) -> tuple[str, str, str]:
    cells = [cell.strip() for cell in row.split("|")]
    return cells[1], cells[3], cells[5]


def test_every_single_line_is_decided() -> None:
    assert len(made()) == sum(len(entry["saes"]) for entry in registry.read_registry().values())
    for one in made():
        assert one.place != "not recognised", one
        assert one.layer is not None, one
        loads = one.place in ("the residual stream after a block", "the embedding")
        assert loads or one.refusal, one


TRUTHS: dict[str, tuple[str, bool]] = {
    "res": ("the residual stream after a block", True),
    "att": ("attention z", False),
    "mlp": ("the MLP's output", False),
    "transcoders": ("a transcoder", False),
}
"""By the word in the names of Gemma Scope's releases, as its authors explain them."""


def test_gemma_scope_by_its_names() -> None:
    seen: Counter[str] = Counter()
    for one in made():
        match = re.fullmatch(
            r"gemma-scope-.*-(?:pt|it)-(res|att|mlp|transcoders)(?:-.*)?", one.release
        )
        if match and one.place != "the embedding":
            place, loads = TRUTHS[match[1]]
            assert (one.place, not one.refusal) == (place, loads), one
            seen[match[1]] += 1
    assert seen["res"] > 1000
    assert all(seen[word] > 500 for word in TRUTHS)


@pytest.mark.parametrize(
    ("reference", "place", "layer", "loads"),
    [
        ("gpt2-small-res-jb:blocks.0.hook_resid_pre", "the residual stream after a block", -1, True),
        ("gpt2-small-res-jb:blocks.11.hook_resid_post", "the residual stream after a block", 11, True),
        ("gpt2-small-resid-mid-v5-32k:blocks.3.hook_resid_mid",
         "the residual stream between attention and MLP", 3, False),
        ("gpt2-small-attn-out-v5-32k:blocks.3.hook_attn_out", "the attention's output", 3, False),
        ("gpt2-small-hook-z-kk:blocks.10.hook_z", "attention z", 10, False),
        ("gpt2-small-mlp-tm:blocks.3.hook_mlp_out", "the MLP's output", 3, False),
        ("gemma-scope-2b-pt-res:embedding/width_4k/average_l0_6", "the embedding", -1, True),
        ("llama_scope_lxr_8x:l15r_8x", "the residual stream after a block", 15, True),
        ("llama_scope_lxa_32x:l15a_32x", "the attention's output", 15, False),
        ("llama_scope_lxm_8x:l15m_8x", "the MLP's output", 15, False),
        ("llama_scope_r1_distill:l7r_800m_openr1_math", "the residual stream after a block", 7, True),
        ("mwhanna-qwen3-4b-transcoders:layer_9", "a transcoder", 9, False),
        ("mntss-gemma-2-2b-2.5m-clt-as-per-layer:layer_9", "several layers", 9, False),
        ("pythia-70m-deduped-res-sm:blocks.0.hook_resid_pre",
         "the residual stream after a block", -1, True),
        ("mistral-7b-res-wg:blocks.8.hook_resid_pre", "the residual stream after a block", 7, False),
        ("qwen-scope-3-1.7b-base-w32k-l50:layer7", "the residual stream after a block", 7, True),
        ("goodfire-llama-3.3-70b-instruct:layer_50", "the residual stream after a block", 50, True),
        ("gpt-oss-20b-andyrdt:resid_post_layer_3_trainer_0",
         "the residual stream after a block", 3, True),
        ("temporal-sae-gemma-2-2b:blocks.12.hook_resid_post",
         "the residual stream after a block", 12, False),
        ("sae_bench_pythia70m_sweep_gated_ctx128_0730:blocks.3.hook_resid_post__trainer_0",
         "the residual stream after a block", 3, False),
    ],
)  # fmt: skip
def test_truths_by_hand(reference: str, place: str, layer: int, loads: bool) -> None:
    line = registry.find(*reference.split(":", 1))
    one = registry_table.decide_line(line)
    assert (one.place, one.layer, not one.refusal) == (place, layer, loads)
    if loads:
        assert line.check().layer == layer
    else:
        with pytest.raises(UnsupportedError, match="expected"):
            line.check()


def test_listing_a_release_decides_as_the_table_does() -> None:
    """And loading does: `load_sae` asks `Registered.check` before it downloads."""
    by_release: dict[str, list[Decision]] = {}
    for one in made():
        by_release.setdefault(one.release, []).append(one)
    for release, group in by_release.items():
        layers = sorted({one.layer for one in group if not one.refusal and one.layer is not None})
        if layers:
            suite = load_suite(f"{release}:")
            assert list(suite.layers) == layers
            assert len(suite) == sum(not one.refusal for one in group)
        else:
            with pytest.raises(UnsupportedError, match=f"left out {len(group)} "):
                load_suite(f"{release}:")


@pytest.mark.parametrize(
    "reference",
    ["llama_scope_lxa_8x:l15a_8x", "gemma-scope-2b-pt-mlp:layer_0/width_16k/average_l0_119",
     "gemma-scope-2-1b-pt-transcoders-all:layer_0_width_16k_l0_big",
     "mistral-7b-res-wg:blocks.8.hook_resid_pre"],
)  # fmt: skip
def test_what_the_table_refuses_is_refused_before_any_download(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)
    monkeypatch.setattr(huggingface_hub, "model_info", no_network)
    from saematch.loading import load_sae

    for layer in (None, 0):
        with pytest.raises(UnsupportedError, match="expected"):
            load_sae(reference, layer=layer)
