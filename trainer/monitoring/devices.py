"""What a device can do at most, by its name, and how long a run takes on it."""

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "GH200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "A6000": 155.0,
    "RTX 6000 Ada": 364.0,
    "RTX 5090": 209.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
    "MI300X": 1307.0,
    "MI250X": 383.0,
}
"""Part of a device's name -> dense bfloat16 TFLOPS with float32 sums, from the makers' data sheets
(without sparsity). The longest name that fits counts."""

EXPECTED_MFU = 0.4
"""Share of the peak that a training run of this kind is planned with."""


def peak_tflops(name: str) -> float:
    """Of one device of this name; 0 where it is not known."""
    found = [part for part in PEAK_TFLOPS if part in name]
    return PEAK_TFLOPS[max(found, key=len)] if found else 0.0


def estimate(flops: float, *, device: str, count: int, tflops: float, price: float) -> str:
    """How long and how dear so many operations are on `count` devices, in one line."""
    total = f"{flops:.2g} FLOPs"
    if not tflops:
        return f"{total}; hours unknown: no peak is known of '{device}' (peak_tflops= states it)"
    hours = flops / (tflops * 1e12 * EXPECTED_MFU * count) / 3600
    cost = f", cost {hours * count * price:,.2f}" if price else " (price_per_hour= adds the cost)"
    return (
        f"{total}; about {_time(hours)} on {count} x {device} at {EXPECTED_MFU:.0%} of "
        f"{tflops:g} TFLOPS: {hours * count:.2f} device-hours{cost}"
    )


def _time(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} minutes" if hours < 1 else f"{hours:.1f} hours"
