"""Sub-models of a UE made small enough for its device, and what that costs."""
