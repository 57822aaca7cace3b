"""Optional components that cannot be read: left out, their share given to those they name.

    Mixture, {component: why it cannot be read} --without--> Mixture, what was left out

What is built is the mixture that is returned: its recipe, ratios and fingerprint are those of a
file that never named the components left out.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from mixtures.config import Component, Mixture
from mixtures.schedule import added, constant, mean_and_points


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A component that is not in what is built, and who has its share."""

    component: str
    ratio: float
    reason: str
    given: dict[str, float]
    """Component -> what its ratio gained."""

    @property
    def sentence(self) -> str:
        """What plan, build and card say of it."""
        to = ", ".join(f"{name} (+{100 * part:.4g} points)" for name, part in self.given.items())
        reason = self.reason.rstrip(".")
        return (
            f"{self.component} (optional, {100 * self.ratio:.4g} %) is left out: {reason}. "
            f"Its share goes to {to}."
        )


def without(mixture: Mixture, absent: Mapping[str, str]) -> tuple[Mixture, list[LeftOut]]:
    """The mixture without the optional components that are `absent` (name -> reason).

    A share goes to the components of `instead` that are there, in proportion to their ratios.
    Raises ValueError where none of them is.
    """
    components = dict(mixture.components)
    left = []
    for name, reason in absent.items():
        component = mixture.components[name]
        heirs = [other for other in component.instead if other not in absent]
        if not heirs:
            raise ValueError(
                f"{mixture.name}: {name} is optional and cannot be read ({reason.rstrip('.')}), "
                f"and neither can {', '.join(component.instead)}, to which "
                f"components.{name}.instead gives its share.\nway out: name others there, or set "
                f"components.{name}.ratio to 0 and share it out."
            )
        whole = sum(mixture.components[heir].ratio for heir in heirs)
        given = {heir: component.ratio * mixture.components[heir].ratio / whole for heir in heirs}
        left.append(LeftOut(component=name, ratio=component.ratio, reason=reason, given=given))
        del components[name]
        for heir, part in given.items():
            components[heir] = _with_share(components[heir], component, part)
    limits = {n: limit for n, limit in mixture.limits.items() if limit.component not in absent}
    return dataclasses.replace(mixture, components=components, limits=limits), left


def _with_share(heir: Component, gone: Component, part: float) -> Component:
    """The heir with so much more, at every point where the one that is gone had it."""
    grown = dataclasses.replace(heir, ratio=heir.ratio + part)
    if not (heir.schedule or gone.schedule):
        return grown
    own, more = (c.schedule or constant(c.ratio) for c in (heir, gone))
    ratio, points = mean_and_points(added(own, more, factor=part / gone.ratio))
    return dataclasses.replace(heir, ratio=ratio, schedule=points)


def differences(mixture: Mixture, other: Mixture) -> dict[str, tuple[float, float]]:
    """Component -> its ratio in `other` and in `mixture`, where they differ."""
    names = dict.fromkeys([*other.components, *mixture.components])
    ratios = {
        name: tuple(
            m.components[name].ratio if name in m.components else 0.0 for m in (other, mixture)
        )
        for name in names
    }
    return {name: (a, b) for name, (a, b) in ratios.items() if abs(a - b) > 1e-9}
