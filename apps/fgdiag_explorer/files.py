"""What the browser fetches beside the pages: thumbnails by row of a known run, and tables as CSV.

No path comes from the browser: a run is looked up by name, an image by its number, a table by its name.
"""

from collections.abc import Callable, Mapping

import pandas as pd
from flask import Flask, Response, abort, request

from fgdiag.errors import FgdiagError
from fgdiag_explorer.choices import RUN, Choices
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import Results

Table = Callable[[Results, Choices, Library], pd.DataFrame]
"""A table that a page shows, as the address says."""

A_DAY = 86_400
"""Seconds a browser keeps a thumbnail."""


def serve_files(server: Flask, library: Library, tables: Mapping[str, Table]) -> None:
    """Add the addresses `thumbnails/<row>.jpg` and `tables/<name>.csv`, each with `?run=`."""

    @server.get("/thumbnails/<int:row>.jpg")
    def _thumbnail(row: int) -> Response:
        path = _known(library).thumbnail(row)
        if path is None:
            abort(404)
        answer = Response(path.read_bytes(), mimetype="image/jpeg")
        answer.cache_control.private, answer.cache_control.max_age = True, A_DAY
        answer.add_etag()
        answer.make_conditional(request)
        return answer

    @server.get("/tables/<name>.csv")
    def _table(name: str) -> Response:
        results = _known(library)
        if name not in tables:
            abort(404)
        choices = Choices(request.query_string.decode())
        try:
            table = tables[name](results, choices, library)
        except FgdiagError as error:
            return Response(str(error), 404, mimetype="text/plain")
        answer = Response(table.to_csv(index=False), mimetype="text/csv")
        image = choices.number("image", 0, len(results.images) - 1)
        of = name if image is None else f"{name}-{image}"
        file = f"{results.name.replace('/', '-')}-{of}.csv"
        answer.headers.set("Content-Disposition", "attachment", filename=file)
        return answer


def _known(library: Library) -> Results:
    name = request.args.get(RUN, "")
    if name not in library:
        abort(404)
    return library[name]
