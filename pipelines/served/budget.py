"""How many requests and tokens may still be spent, counted over all runs of the same answers."""

import threading
from dataclasses import dataclass, field


@dataclass
class Budget:
    """What was spent and what is reserved for requests under way; shared by threads."""

    max_requests: int = 0
    """0: as many as it takes."""
    max_tokens: int = 0
    requests: int = 0
    """Sent, tries again among them."""
    tokens: int = 0
    reserved: int = 0
    reached: str = ""
    """The budget that was reached."""
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def reserve(self, tokens: int) -> bool:
        """Whether one more question fits, whose tokens are then reserved; where it would not beside
        what is reserved for others, once those are done.
        """
        with self.changed:
            while True:
                if self.max_requests and self.requests >= self.max_requests:
                    self.reached = "max_requests"
                elif not self.max_tokens or self.tokens + self.reserved + tokens <= self.max_tokens:
                    self.reserved += tokens
                    return True
                elif self.reserved:
                    self.changed.wait()
                    continue
                else:
                    self.reached = "max_tokens"
                return False

    def request(self) -> bool:
        """Whether one more request may be sent, which is then counted."""
        with self.changed:
            if self.max_requests and self.requests >= self.max_requests:
                self.reached = "max_requests"
                return False
            self.requests += 1
            return True

    def settle(self, reserved: int, *, used: int) -> None:
        """A question is done: what it used stands in the place of what was reserved for it."""
        with self.changed:
            self.reserved -= reserved
            self.tokens += used
            self.changed.notify_all()
