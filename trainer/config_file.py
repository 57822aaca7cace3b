"""The trainer's settings as YAML: a file of this folder or any, then `key=value`, then checked."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.arguments import did_you_mean
from trainer.config import TOWER_RATES, Config, Model, check

CONFIGS = Path(__file__).parent


TOWERS_KEPT = {"true": "both", "false": "none"}
"""What `gradient_checkpointing` was called before it named towers."""


PATHS = ("data", "output", "init", "cache")
"""Keys whose value is taken as it stands: a path may hold what YAML would read otherwise."""


def find_config(name: str, *, folder: Path | None = None) -> Path:
    """The YAML that `config=name` means: a file, or one of the folder (None: CONFIGS)."""
    path, folder = Path(name), folder or CONFIGS
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"config={name}: no such file.")
        return path
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"config={name}: no such config. {did_you_mean(name, known)}")
    return folder / f"{name}.yaml"


def load(
    name: str,
    overrides: Mapping[str, str],
    *,
    model_of: Callable[[str], Model] | None = None,
) -> Config:
    """The checked settings of `name` with `overrides` (dotted keys) on top.

    Where neither a config nor a `model:` in it is given, the sizes are those of `init`, which
    `model_of` reads, and the rest is as in the config of this folder that has these sizes.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = find_config(name) if name else None
    written = _read(path) if path else {}
    init = overrides.get("init", written.get("init", ""))
    sizes = _like(model_of(init)) if model_of and init and "model" not in written else {}
    where = str(path) if path else f"init={init}"
    said: list[str] = []
    try:
        merged = OmegaConf.structured(Config)
        for layer in (sizes, written):
            merged = OmegaConf.unsafe_merge(merged, layer)
        for key, value in overrides.items():
            where = f"{key}={value}"
            refuse_interpolation(value, where=key)
            layer = _override(key, value)
            said += _dotted(OmegaConf.to_container(layer))
            merged = OmegaConf.unsafe_merge(merged, layer)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        found = getattr(error, "full_key", None) or getattr(error, "key", None)
        raise ValueError(f"{where}: {message}" + (f" (key {found})" if found else "")) from error
    assert isinstance(config, Config)
    hers = {} if path is None or path.parent == CONFIGS else written
    by_user = written.get("written_by_user", [*_dotted(hers.get("model", {}), "model")])
    config = dataclasses.replace(
        config,
        name=config.name or (path.stem if path else Path(init.partition("@")[0]).name),
        written_by_user=sorted({*by_user, *(key for key in said if key.startswith("model."))}),
    )
    check(config, where=str(path or f"init={init}"))
    return config


def refuse_interpolation(value: Any, *, where: str) -> None:
    """Raises ValueError where a text holds `${`, in whose place OmegaConf would put something: a
    variable of the environment, say, which would stand in every checkpoint.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            refuse_interpolation([key, each], where=where)
    elif isinstance(value, list):
        for each in value:
            refuse_interpolation(each, where=where)
    elif isinstance(value, str) and "${" in value:
        raise ValueError(
            f"{where}: {value!r} holds '${{'. Nothing is interpolated in a config: write the value."
        )


def _read(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    refuse_interpolation(written, where=str(path))
    if not isinstance(written, dict):
        raise ValueError(f"{path}: found {type(written).__name__}, expected keys and values.")
    if isinstance(written.get("data"), str):
        written["data"] = {written["data"]: 1.0}
    return {str(key): value for key, value in _spelled_out(written).items()}


def _spelled_out(written: dict[Any, Any]) -> dict[Any, Any]:
    """The settings with what may be said shorter as the dataclasses have it."""
    kept, optim = written.get("gradient_checkpointing"), written.get("optim")
    if isinstance(kept, bool):
        written = {**written, "gradient_checkpointing": TOWERS_KEPT[str(kept).lower()]}
    if isinstance(optim, dict) and isinstance(optim.get("lr"), int | float):
        rates = dict.fromkeys(TOWER_RATES, optim["lr"])
        written = {**written, "optim": {**optim, "lr": rates}}
    return written


def _like(sizes: Model) -> dict[str, Any]:
    """These sizes, and what the config of this folder that has them says besides."""
    model = dataclasses.asdict(sizes)
    for file in sorted(CONFIGS.glob("*.yaml")):
        shipped = _read(file)
        parts = shipped.pop("model")
        if all(
            model[part].get(key) == value
            for part in ("vision", "language")
            for key, value in parts[part].items()
            if key not in ("pretrained", "rope_theta", "max_position_embeddings")
        ):
            return {**shipped, "model": model}
    return {"model": model}


def _dotted(value: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(value, dict):
        yield prefix
        return
    for key, inner in value.items():
        yield from _dotted(inner, f"{prefix}.{key}" if prefix else str(key))


def _override(key: str, value: str) -> Any:
    from omegaconf import OmegaConf

    if key == "data" and not value.lstrip().startswith("{"):
        return OmegaConf.create({"data": {value: 1.0}})
    if key == "optim.lr" and _is_number(value):
        return OmegaConf.create({"optim": {"lr": dict.fromkeys(TOWER_RATES, float(value))}})
    if key in PATHS and key != "data":
        return OmegaConf.create({key: value})
    if not value:  # `key=` is the empty string, which YAML would read as null
        empty = OmegaConf.create({})
        OmegaConf.update(empty, key, "")
        return empty
    found = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]))
    return OmegaConf.create(_spelled_out(found)) if isinstance(found, dict) else found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def to_yaml(config: Config) -> str:
    """The settings as `load` reads them."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))
