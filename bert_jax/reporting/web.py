"""A report in Markdown as one HTML file that needs no network."""

import base64
import html
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff }
h1, h2 { line-height: 1.2; margin-top: 2rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem;
  display: block; overflow-x: auto; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd }
th { border-bottom: 2px solid #888 }
code, pre { background: #f3f3f3; border-radius: 3px; font-size: .85rem }
code { padding: .1rem .25rem }
pre { padding: .8rem; overflow-x: auto }
img { max-width: 100%; height: auto }
.views > input { margin-left: 1rem }
.views > img { display: none; margin-top: .5rem }
@media print { .views > input, .views > label { display: none } }
"""


def page(title: str, markdown: str,
         pictures: Mapping[str, Mapping[str, bytes]]) -> str:
  """
  Args:
    markdown: whose images are of `pictures`.
    pictures: by the name of an image's file its views by name, as SVG; several
      are shown one at a time.
  """
  from markdown_it import MarkdownIt  # Slow to import.
  parser = MarkdownIt("commonmark", {"html": False}).enable("table")
  numbers, views = itertools.count(), {html.escape(name): images
                                       for name, images in pictures.items()}
  rules: list[str] = []

  def image(renderer: Any, tokens: Any, index: int, *_: Any) -> str:
    token, number = tokens[index], next(numbers)
    images = views[html.escape(token.attrs["src"])]
    rules.extend(_rules(number, len(images)))
    return "".join(_images(number, token.content, images))

  parser.add_render_rule("image", image)
  body = parser.render(markdown)
  return (f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
          '<meta name="viewport" content="width=device-width">\n'
          f"<title>{html.escape(title)}</title>\n"
          f"<style>\n{_STYLE}{''.join(rules)}</style>\n{body}</html>\n")


def _rules(number: int, views: int) -> Iterator[str]:
  """Show the view whose button is pressed."""
  if views > 1:
    yield from (f"#v{number}_{i}:checked ~ #i{number}_{i} "
                "{ display: block }\n" for i in range(views))


def _images(number: int, title: str,
            images: Mapping[str, bytes]) -> Iterator[str]:
  if len(images) > 1:
    yield '<span class="views">'
    for i, name in enumerate(images):
      yield (f'<input type="radio" name="v{number}" id="v{number}_{i}"'
             f'{"" if i else " checked"}><label for="v{number}_{i}">'
             f"{html.escape(name)}</label>\n")
  for i, (name, svg) in enumerate(images.items()):
    data = base64.b64encode(svg).decode()
    yield (f'<img id="i{number}_{i}" alt="{html.escape(f"{title}, {name}")}" '
           f'src="data:image/svg+xml;base64,{data}">\n')
  if len(images) > 1:
    yield "</span>"
