"""Basic blocks and the loops that enclose them.

Warp-level counters need to know which executions by different lanes are one warp-instruction. Two lanes
execute an instruction together when they reach it in the same iteration of every loop around it: that is what
a warp does that reconverges as early as it can. So the translated code carries a number that names the
current iterations, and changes it on the edges of this module's loops.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Loop:
    header: int
    blocks: set[int]
    index: int  # names the loop in the generated code


@dataclass
class Edge:
    """What happens to the loops when control goes from one block to another."""

    left: Loop | None = None  # the outermost loop that is left
    repeated: Loop | None = None  # the loop whose next iteration begins
    entered: list[Loop] = field(default_factory=list)  # outermost first


class LoopForest:
    """Loops by repeated strongly connected components: right for any graph, also irreducible ones."""

    def __init__(self, successors: list[list[int]]):
        self.successors = successors
        self.loops: list[Loop] = []
        self.chains: list[list[Loop]] = [[] for _ in successors]  # loops around a block, outermost first
        self._back_edges: set[tuple[int, int]] = set()
        self._find(set(range(len(successors))))

    def _find(self, blocks: set[int]) -> None:
        pending = [blocks]
        while pending:
            inside = pending.pop()
            for component in self._components(inside):
                cyclic = len(component) > 1 or any((b, b) not in self._back_edges and b in self.successors[b] for b in component)
                if not cyclic:
                    continue
                entries = {
                    v for u, targets in enumerate(self.successors) if u not in component for v in targets if v in component
                }
                loop = Loop(min(entries or component), component, len(self.loops))
                self.loops.append(loop)
                for b in component:
                    self.chains[b].append(loop)
                    if loop.header in self.successors[b]:
                        self._back_edges.add((b, loop.header))
                pending.append(component)

    def _components(self, inside: set[int]) -> list[set[int]]:
        """Tarjan's algorithm on the blocks `inside`, without recursion and without known back edges."""
        index: dict[int, int] = {}
        low: dict[int, int] = {}
        stack: list[int] = []
        on_stack: set[int] = set()
        result = []
        for root in sorted(inside):
            if root in index:
                continue
            work = [(root, iter(self.successors[root]))]
            index[root] = low[root] = len(index)
            stack.append(root)
            on_stack.add(root)
            while work:
                node, targets = work[-1]
                for t in targets:
                    if t not in inside or (node, t) in self._back_edges:
                        continue
                    if t not in index:
                        index[t] = low[t] = len(index)
                        stack.append(t)
                        on_stack.add(t)
                        work.append((t, iter(self.successors[t])))
                        break
                    if t in on_stack:
                        low[node] = min(low[node], index[t])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[node])
                    if low[node] == index[node]:
                        component = set()
                        while True:
                            member = stack.pop()
                            on_stack.discard(member)
                            component.add(member)
                            if member == node:
                                break
                        result.append(component)
        return result

    def edge(self, source: int, target: int) -> Edge:
        here, there = self.chains[source], self.chains[target]
        if (source, target) in self._back_edges:
            # The innermost loop of which both are part and which this edge repeats.
            loop = next(x for x in reversed(there) if x.header == target and source in x.blocks)
            inner = here[here.index(loop) + 1 :]
            return Edge(left=inner[0] if inner else None, repeated=loop)
        left = [x for x in here if x not in there]
        return Edge(left=left[0] if left else None, entered=[x for x in there if x not in here])
