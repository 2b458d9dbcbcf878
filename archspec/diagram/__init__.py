"""Pictures of a model.

`render.diagram` gives DOT text, `render.render` a file. A picture comes about in four steps, each a plain value:

- what is shown. `figure` puts the panels together (`panel`): `overview` (the whole model: its `stacks`, their layers as
  `stripes` and what stands at the `ends`), `layer` (the statements of one block), `component` (the ops of each of the
  `kinds`, fewer of them by `fold`, in `boxes`), `footer` (bars of parameters). `memory` says what decoding keeps.
- the flow of a panel: nodes and lines without places (`flow`).
- places: `rows` (what stands above what), `order` (and beside what), `columns` (how far apart), `place`, `grid`.
- the `scene`: boxes, texts and lines at fixed places, which `dot` writes as text.

Everything is read from the lowered program of a spec and the typed facts of ops and components. `words` writes numbers
and names for people, `text` measures and breaks lines, `style` holds the colours. Lengths are added up by `fsum`, as
`sum` gives other last digits from Python 3.12 on, which would show in rounded places.
"""
