"""Style of the page: one column on a phone, charts side by side on a wide screen, light and dark, also for print.

The series have the colours of Okabe and Ito, which colour-blind people can distinguish. Light colours are darker on
a white background, and dark colours are lighter on a dark background, so that thin lines stay visible.
"""

from __future__ import annotations

_LIGHT = {
    "ground": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#16191d",
    "quiet": "#55606c",
    "rule": "#d5dae0",
    "link": "#0b5cad",
    "right": "#00795a",
    "wrong": "#c24a00",
}
_DARK = {
    "ground": "#14171a",
    "panel": "#1d2226",
    "ink": "#e8ebee",
    "quiet": "#a6b0ba",
    "rule": "#3a424a",
    "link": "#7fc1ff",
    "right": "#2fc99a",
    "wrong": "#ff8a4c",
}
_LINES_LIGHT = ["#0072b2", "#d55e00", "#008a65", "#b5568c", "#9c6a00", "#2f86bd", "#5a5a5a", "#7a7000", "#6a3d9a"]
_LINES_DARK = ["#4da6e0", "#f07a2b", "#2fc99a", "#e08cbd", "#e6a82e", "#8ccbf0", "#bdbdbd", "#f0e442", "#b99be0"]
_FILLS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c8c", "#f0e442", "#7a52a3"]
_ON_FILLS = ["#fff", "#000", "#000", "#000", "#000", "#000", "#000", "#000", "#fff"]


def _variables(theme: dict[str, str], lines: list[str]) -> str:
    values = {**theme, **{f"c{index}": colour for index, colour in enumerate(lines)}}
    return "".join(f"--{name}:{value};" for name, value in values.items())


_SERIES = "".join(
    f".line.s{i},.thread.s{i}{{stroke:var(--c{i})}}.mark.s{i}{{fill:var(--c{i})}}"
    f".fill.f{i}{{fill:{_FILLS[i]}}}.band.f{i}{{fill:var(--c{i})}}text.on.f{i}{{fill:{_ON_FILLS[i]}}}"
    for i in range(len(_FILLS))
)

LIGHT = _variables(_LIGHT, _LINES_LIGHT)
"""Variables of the light colours."""

CHARTS = f"""\
svg text{{font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--ink)}}
svg .tick{{fill:var(--quiet);font-size:10.5px}}
svg .axis{{fill:var(--quiet)}}
svg .on{{font-weight:600}}
.grid line{{stroke:var(--rule);stroke-width:1}}
.line{{fill:none;stroke-width:2;stroke-linejoin:round}}
.mark{{stroke:var(--panel);stroke-width:.7}}
.band{{opacity:.16}}
.fill{{stroke:var(--panel);stroke-width:1;stroke-linejoin:round}}
.whisker{{stroke:var(--ink);stroke-width:1.5}}
.link{{stroke:var(--quiet);stroke-width:1.5}}
.thread{{fill:none;stroke-width:.8;opacity:.55}}
.frame{{fill:none;stroke:var(--rule)}}
{_SERIES}"""
"""Rules of the parts of a chart; their colours are variables."""

STYLE = f"""
:root{{color-scheme:light dark;{LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_variables(_DARK, _LINES_DARK)}}}}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%;scroll-behavior:smooth}}
body{{margin:0 auto;max-width:1240px;padding:1.2rem 1rem 4rem;background:var(--ground);color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}}
h1{{font-size:1.55rem;line-height:1.2;margin:.2rem 0 .4rem}}
h2{{font-size:1.2rem;margin:2.4rem 0 .5rem;padding-top:.9rem;border-top:1px solid var(--rule)}}
h3{{font-size:1rem;margin:1.4rem 0 .3rem}}
p{{margin:.4rem 0;max-width:75ch}}
a{{color:var(--link)}}
.lead{{color:var(--quiet)}}
.note{{color:var(--quiet);font-size:.88rem}}
.flag{{display:inline-block;border:1px solid currentColor;border-radius:4px;padding:.05rem .5rem;font-size:.85rem;
 font-weight:600;margin:0 .4rem .3rem 0}}
.flag.warn{{color:var(--wrong)}}
nav ul{{display:flex;flex-wrap:wrap;gap:.1rem .9rem;list-style:none;padding:0;margin:.8rem 0 0;font-size:.95rem}}
nav a{{display:inline-block;padding:.25rem 0}}
:focus-visible{{outline:3px solid var(--link);outline-offset:2px}}
.skip{{position:absolute;left:-999px}}
.skip:focus{{left:1rem;top:.5rem;background:var(--ground);padding:.3rem .6rem}}
.facts{{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.6rem;margin:1rem 0;padding:0}}
.facts div{{background:var(--panel);border-radius:6px;padding:.6rem .8rem}}
.facts dt{{color:var(--quiet);font-size:.85rem}}
.facts dd{{margin:0;font-size:1.35rem;font-weight:600;font-variant-numeric:tabular-nums}}
.panels{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:1rem;margin:.6rem 0}}
figure{{margin:0;min-width:0;break-inside:avoid}}
figcaption{{font-weight:600;font-size:.92rem;margin:0 0 .1rem .2rem}}
figure>svg{{display:block;width:100%;max-width:460px;height:auto;background:var(--panel);border-radius:6px}}
{CHARTS}
.legend{{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;list-style:none;padding:0;margin:.5rem 0;font-size:.92rem}}
.legend li{{display:flex;align-items:center;gap:.4rem}}
.legend svg{{flex:none}}
.scroll{{overflow-x:auto;margin:.5rem 0;border:1px solid var(--rule);border-radius:6px;max-width:100%;
 width:fit-content;background:linear-gradient(var(--ground),var(--ground)) right/24px 100% no-repeat local,
 linear-gradient(to left,rgba(128,128,128,.45),transparent) right/14px 100% no-repeat}}
table{{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}}
.title{{font-weight:600;margin:1.1rem 0 .3rem}}
th,td{{overflow-wrap:normal;padding:.28rem .6rem;text-align:right;white-space:nowrap;border-top:1px solid var(--rule)}}
thead th{{color:var(--quiet);font-weight:600;white-space:normal;vertical-align:bottom}}
th[scope=row]{{text-align:left;font-weight:500}}
thead th.name{{text-align:left}}
th:first-child{{position:sticky;left:0;background:var(--ground);white-space:normal;min-width:8rem;max-width:22rem}}
details{{margin:.5rem 0}}
summary{{cursor:pointer;color:var(--link);padding:.25rem 0;width:fit-content;max-width:100%}}
pre{{background:var(--panel);border-radius:6px;padding:.7rem .8rem;overflow-x:auto;font-size:.86rem;line-height:1.45;
 white-space:pre-wrap}}
code{{font-family:ui-monospace,"SF Mono",Menlo,Consolas,monospace}}
.ranked{{display:flex;gap:.9rem;align-items:flex-start;margin:.7rem 0;break-inside:avoid}}
.ranked ol{{display:grid;grid-template-columns:repeat(auto-fill,minmax(58px,58px));gap:.5rem;list-style:none;
 margin:0;padding:0;flex:1;min-width:0}}
.shot{{width:58px;font-size:.74rem;line-height:1.25;text-align:center}}
.shot img{{display:block;width:58px;height:104px;object-fit:contain;background:var(--panel);
 border:3px solid var(--quiet);border-radius:4px;image-rendering:auto}}
.shot.right img{{border-color:var(--right)}}
.shot.wrong img{{border-color:var(--wrong);border-style:dashed}}
.shot b{{display:block}}
.shot.right b{{color:var(--right)}}
.shot.wrong b{{color:var(--wrong)}}
@media (max-width:480px){{body{{padding:.8rem .8rem 3rem}}.ranked{{gap:.6rem}}
 .ranked ol{{grid-template-columns:repeat(auto-fill,minmax(50px,50px));gap:.4rem}}
 .shot{{width:50px}}.shot img{{width:50px;height:90px}}
 th:first-child{{max-width:9rem}}}}
@media print{{:root{{{LIGHT}}}
 body{{font-size:10.5pt;max-width:none;padding:0}}nav,.skip,details.data{{display:none}}
 .panels{{grid-template-columns:repeat(2,1fr)}}.scroll{{overflow:visible;border:0}}
 table{{font-size:7.5pt}}th,td{{padding:.15rem .3rem;white-space:normal}}th:first-child{{position:static}}
 h2{{break-after:avoid}}*{{print-color-adjust:exact;-webkit-print-color-adjust:exact}}}}
"""
