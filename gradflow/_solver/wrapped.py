"""A solver around another one."""

import diffrax


class AbstractWrapper(diffrax.AbstractWrappedSolver):
    """Forwards everything that diffrax asks of a solver to the one inside, but for what
    a step does."""

    @property
    def term_structure(self):  # pyright: ignore
        return self.solver.term_structure

    @property
    def interpolation_cls(self):  # pyright: ignore
        return self.solver.interpolation_cls

    @property
    def term_compatible_contr_kwargs(self):  # pyright: ignore
        return self.solver.term_compatible_contr_kwargs

    # diffrax asks these of a solver that it takes for an explicit or implicit one.
    @property
    def scan_kind(self):
        return self.solver.scan_kind  # pyright: ignore

    @property
    def root_finder(self):
        return self.solver.root_finder  # pyright: ignore

    @property
    def root_find_max_steps(self):
        return self.solver.root_find_max_steps  # pyright: ignore

    def order(self, terms):
        return self.solver.order(terms)

    def strong_order(self, terms):
        return self.solver.strong_order(terms)

    def error_order(self, terms):
        return self.solver.error_order(terms)

    def func(self, terms, t0, y0, args):
        return self.solver.func(terms, t0, y0, args)
