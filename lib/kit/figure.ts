import { escaped } from '../base/words.js'

/** Round a coordinate to a tenth of a unit. */
export const round = (value: number): number => Math.round(value * 10) / 10

/** Shorten a text to at most so many characters. */
export function shortened(text: string, most: number): string {
  const characters = [...text]
  return characters.length > most ? `${characters.slice(0, most - 1).join('')}…` : text
}

/** Return a count with its noun: `3 words`, `1 word`. */
export const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`

const FONT = 'system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif'

export interface Svg {
  /** CSS class of the figure, which its style uses. */
  name: string
  title: string
  /** Description for screen readers. */ // language: accessibility term
  description?: string
  width: number
  height: number
  /** Ratio of the displayed size to the view box. Default: the available width. */
  scale?: number
  /** Colors as custom properties for light and dark mode, in addition to `--ink` and `--soft` for text. */
  colours: { light: string; dark: string }
  /** CSS rules, each of which begins with the figure's class. */
  style: string
  parts: readonly string[]
}

/** Return a self-contained SVG figure whose colors follow the reader's light or dark mode. */
export function svg({ name, title, description, width, height, scale, colours, style, parts }: Svg): string {
  const size = scale === undefined ? '' : ` width="${round(scale * width)}" height="${round(scale * height)}"`
  const subtitle = description === undefined ? '' : `<desc>${escaped(description)}</desc>`
  return `<svg xmlns="http://www.w3.org/2000/svg" class="${name}" viewBox="0 0 ${width} ${height}"${size} role="img" aria-label="${escaped(title)}">
<title>${escaped(title)}</title>${subtitle}<style>
.${name}{color-scheme:light dark;--ink:#1d2733;--soft:#5a6472;${colours.light}}
@media (prefers-color-scheme:dark){.${name}{--ink:#e8e6e1;--soft:#9fa8b4;${colours.dark}}}
.${name} text{font:14px ${FONT};fill:var(--ink)}
${style}</style>
${parts.join('\n')}
</svg>
`
}

/** Return an HTML table of texts; `wrong` rows are marked. The first column has the names of the rows. */
export function table(head: readonly string[], rows: readonly { cells: readonly string[]; wrong?: boolean }[]): string {
  const names = head.map((name) => `<th scope="col">${escaped(name)}</th>`).join('')
  const lines = rows.map(({ cells: [first = '', ...rest], wrong = false }) => {
    const values = rest.map((cell) => `<td>${escaped(cell)}</td>`).join('')
    return `<tr${wrong ? ' class="wrong"' : ''}><th scope="row">${escaped(first)}</th>${values}</tr>`
  })
  return `<div class="wide" tabindex="0"><table><thead><tr>${names}</tr></thead>
<tbody>${lines.join('')}</tbody></table></div>`
}

export interface Page {
  title: string
  lead: string
  /** Markup below the lead: figures, paragraphs, a {@link table}. */
  parts: readonly string[]
  /** CSS rules after those of every page. */
  style: string
}

/** Return a self-contained HTML page. */
export const page = ({ title, lead, parts, style }: Page): string => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title><style>${PAGE_STYLE}
${style}</style></head><body><main>
<h1>${escaped(title)}</h1>
<p class="lead">${escaped(lead)}</p>
${parts.join('\n')}
</main></body></html>
`

const PAGE_STYLE = `
:root{color-scheme:light dark;--paper:#f6f5f2;--sheet:#fff;--ink:#1d2733;--soft:#5a6472;--rule:#e5e3dd;--warn:#a33a1f}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--sheet:#1c2229;--ink:#e8e6e1;--soft:#9fa8b4;--rule:#2f3842;--warn:#f0975f}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 ${FONT}}
main{max-width:1008px;margin:0 auto;padding:48px 24px 72px}h1{font-size:32px;line-height:1.2;margin:0 0 12px;overflow-wrap:anywhere}
.lead{font-size:18px;color:var(--soft);margin:0 0 16px}figure{margin:0 0 24px;background:var(--sheet);padding:16px;overflow:auto}
svg{width:100%;height:auto;display:block}table{border-collapse:collapse;width:100%;background:var(--sheet);font-size:14px}
th,td{padding:6px 12px;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}th{font-weight:500;color:var(--soft)}
.wide{overflow:auto}.wrong td:nth-child(3){color:var(--warn)}
@media (max-width:480px){main{padding:24px 12px 48px}h1{font-size:24px}.lead{font-size:16px}figure{padding:8px}th,td{padding:6px 8px}}`
