"""How fast real implementations can be asked here, beside the rates that were measured on an idle machine."""

from __future__ import annotations

from conformance.real.names import ADAPTERS, adapter
from conformance.subsystem import subsystem
from conformance.verdict import UsageError


def main() -> None:
    """A line for each rate; one sentence for what is not there."""
    for (name, base), (_, versioned) in ADAPTERS.items():
        if versioned:
            continue
        try:
            made = adapter(f"real:{base}", base, subsystem(name))
        except UsageError as error:
            print(error)
            continue
        for rate in made.rates():
            verdict = "as usual" if rate.is_usual else "slower than usual"
            print(f"real:{base}: {rate.what}: {rate.measured:,.0f} a second, elsewhere {rate.fact:,.0f}: {verdict}")


if __name__ == "__main__":
    main()
