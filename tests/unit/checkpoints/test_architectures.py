"""Architecture files are data: they describe a model, and name no code."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from volprompt.checkpoints.architectures import ArchitectureFileError, vet_architecture
from volprompt.models.base import build_from_yaml
from volprompt.models.model import ArchitectureError

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["sam_demo.yaml", "sam2_demo.yaml"])
def test_those_of_the_demo_pass(name: str) -> None:
    vet_architecture(REPOSITORY / "demo" / name)


@pytest.mark.parametrize(
    "target",
    [
        "shutil.copyfile",
        "os.system",
        "builtins.exec",
        "torch.load",
        "torch.nn.Module",
        "sam2.build_sam.build_sam2",
        "sys.exit",
        ["sam2.modeling.sam2_base.SAM2Base"],
        None,
    ],
)
def test_what_is_no_module_of_a_model_package_is_refused(tmp_path: Path, target: object) -> None:
    path = tmp_path / "theirs.yaml"
    inner = {"_target_": target, "src": "here", "dst": "there"}
    path.write_text(yaml.safe_dump({"model": {"_target_": "torch.nn.Linear", "in_features": [{"deep": inner}]}}))
    with pytest.raises(ArchitectureFileError, match=r"expected classes of sam2\.modeling"):
        vet_architecture(path)
    with pytest.raises(ArchitectureFileError):
        build_from_yaml(path, {})


@pytest.mark.parametrize(
    "target", ["sam2.modeling.sam2_base.torch.hub.load", "sam2.modeling.sam2_base.SAM2Base.__init__"]
)
def test_what_a_module_imports_or_holds_is_no_class_of_the_package(tmp_path: Path, target: str) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump({"model": {"_target_": target, "repo_or_dir": "a/b", "model": "c"}}))
    with pytest.raises(ArchitectureError, match="is no module of a model package"):
        build_from_yaml(path, {})


def test_a_target_put_together_by_references_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text("a: shutil\nmodel:\n  _target_: torch.nn.Linear\n  x: {_target_: 'sam2.modeling.${a}.copyfile'}\n")
    with pytest.raises((ArchitectureError, ArchitectureFileError)):
        build_from_yaml(path, {})


def test_anchors_are_bounded_and_not_written_out(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path.write_text("\n".join([*lines, "model: {_target_: torch.nn.Linear, in_features: *a11}"]))
    with pytest.raises(ArchitectureFileError, match=r"stands for \d+ values, expected at most 10000"):
        vet_architecture(path)


@pytest.mark.parametrize("text", ["model: [", "a: 1", "model: 3", "model: &m {_target_: *m}", "\0"])
def test_broken_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ArchitectureFileError, match=r"broken\.yaml"):
        vet_architecture(path)
