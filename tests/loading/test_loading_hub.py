"""The Hub, served from a folder in the exact layout, and its refusals."""

from collections.abc import Callable
from pathlib import Path

import loading_checkpoints as build
import pytest
import torch

from saematch.errors import InputError, UsageError
from saematch.loading import load_sae, load_suite, source_files
from saematch.loading.hub import list_files

REPOSITORY = "google/gemma-scope-2b-pt-res"


def test_every_format_from_the_hub(hub: Path) -> None:
    made = {
        f"hf://{REPOSITORY}/layer_12/width_16k/average_l0_82": build.gemma_scope(hub / REPOSITORY),
        "hf://google/gemma-scope-2-1b-pt/resid_post/layer_5_width_16k_l0_small":
            build.gemma_scope_2(hub / "google/gemma-scope-2-1b-pt"),
        "hf://fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x":
            build.llama_scope(hub / "fnlp/Llama3_1-8B-Base-LXR-8x"),
        "hf://EleutherAI/sae-pythia-160m-32k/layers.3":
            build.sparsify(hub / "EleutherAI/sae-pythia-160m-32k"),
        "hf://canrager/lm_sae/resid_post_layer_8/trainer_0":
            build.dictionary_learning(hub / "canrager/lm_sae", "BatchTopKSAE"),
    }  # fmt: skip
    x = build.inputs()
    for reference, built in made.items():
        sae = load_sae(reference)
        assert torch.allclose(sae.reconstruct(x.float()), built.reconstruct(x).float(), atol=1e-4)
        assert sae.reference == reference
        for path in source_files(reference):
            assert hub in path.parents
    assert load_sae("hf://EleutherAI/sae-pythia-160m-32k/layers.3").model_name == (
        "EleutherAI/pythia-160m"
    )
    build.saelens(hub / "me/saes", 4)
    assert load_sae("hf://me/saes/4").layer == 4
    assert load_sae("hf://me/saes@main/4").reference == "hf://me/saes@main/4"


def test_files_and_suites_at_the_hub(hub: Path) -> None:
    for layer, l0 in ((12, 82), (13, 83)):
        build.gemma_scope(hub / REPOSITORY, layer, l0)
    sae = load_sae(f"hf://{REPOSITORY}/layer_13/width_16k/average_l0_83/params.npz")
    assert (sae.layer, sae.name, sae.model_name) == (13, "width_16k/average_l0_83", "gemma-2-2b")
    suite = load_suite(f"hf://{REPOSITORY}")
    assert suite.keys == ("12", "13")
    assert suite.entries[0].reference == f"hf://{REPOSITORY}/layer_12/width_16k/average_l0_82"
    table1 = load_suite("gemma-scope-2b/table1", layers=[13])
    assert table1.load(13).key == "13"


def test_a_file_that_is_not_there_is_named_with_what_is_near(hub: Path) -> None:
    build.gemma_scope(hub / REPOSITORY, 0, 105)
    with pytest.raises(InputError, match=r"average_l0_102/params.npz.*near it.*average_l0_105"):
        load_suite("gemma-scope-2b/table1").load(0)


@pytest.mark.parametrize("path", ["../../etc/passwd", "layer_1/../../x"])
def test_a_path_stays_inside_its_repository(hub: Path, path: str) -> None:
    with pytest.raises(UsageError, match="inside"):
        load_sae(f"hf://{REPOSITORY}/{path}")


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("GatedRepoError", 403, "licence at https://huggingface.co/google/gemma-scope-2b-pt-res"),
        ("RepositoryNotFoundError", 401, "log in"),
        ("RevisionNotFoundError", 404, "revision"),
        ("HfHubHTTPError", 401, "access to .* was refused"),
        ("HfHubHTTPError", 503, "the Hub answers"),
    ],
)
def test_refusals_say_what_to_do(
    hub: Path,
    monkeypatch: pytest.MonkeyPatch,
    response: Callable[[int], object],
    kind: str,
    status: int,
    words: str,
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_: object, **__: object) -> None:
        raise getattr(errors, kind)(f"{status} for url", response=response(status))

    monkeypatch.setattr(huggingface_hub, "model_info", refuse)
    with pytest.raises(InputError, match=words) as caught:
        load_sae(f"hf://{REPOSITORY}/layer_12/width_16k/average_l0_82/params.npz")
    assert len(str(caught.value).splitlines()) <= 2


def test_offline_says_so_and_the_cache_still_serves(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    def offline(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("offline mode is enabled")

    def nothing(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("nothing cached")

    monkeypatch.setattr(huggingface_hub, "model_info", offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    with pytest.raises(InputError, match="out of reach"):
        load_sae(f"hf://{REPOSITORY}/layer_12/width_16k/average_l0_82/params.npz")
    build.gemma_scope(hub / REPOSITORY)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo_id, **_: str(hub / repo_id)
    )
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda repo_id, name, **_: str(hub / repo_id / name),
    )
    assert list_files(REPOSITORY) == ("layer_12/width_16k/average_l0_82/params.npz",)
    assert load_sae(f"hf://{REPOSITORY}/layer_12/width_16k/average_l0_82").layer == 12


def test_a_download_without_network_says_so(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    build.gemma_scope(hub / REPOSITORY)

    def cut(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("connection error")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cut)
    with pytest.raises(InputError, match="out of reach"):
        load_sae(f"hf://{REPOSITORY}/layer_12/width_16k/average_l0_82/params.npz")
