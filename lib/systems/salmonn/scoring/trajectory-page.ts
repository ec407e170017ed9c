import { requireString } from '../../../base/check.js'
import { escaped } from '../../../base/words.js'
import { drawTrajectory, isWrong } from './trajectory-picture.js'
import { checkTrajectory, type EmotionalTrajectory, speakersOf } from './trajectory-report.js'

/** The picture of {@link trajectorySvg} as a page that needs no network, with the summary and a table of the turns. */
export function trajectoryPage(trajectory: EmotionalTrajectory, title = 'Emotional trajectory'): string {
  const { turns, summary } = checkTrajectory('trajectoryPage', trajectory)
  requireString('trajectoryPage', 'title', title)
  const judged = turns.filter(({ reference }) => reference !== undefined)
  const right = judged.filter((turn) => !isWrong(turn)).length
  const { svg, width } = drawTrajectory(trajectory, title)
  const speakers = speakersOf(turns).length
  const lead = `${turns.length} turn${turns.length === 1 ? '' : 's'}, ${speakers} speaker${speakers === 1 ? '' : 's'}.${judged.length > 0 ? ` ${right} of ${judged.length} emotions are right; a ring marks what would have been.` : ''}`
  const head = ['Turn', 'Speaker', 'Emotion', ...(judged.length > 0 ? ['In truth'] : []), 'Words']
  const rows = turns.map((turn, i) => {
    const { speaker, emotion, reference, text = '' } = turn
    const cells = [speaker, emotion, ...(judged.length > 0 ? [reference ?? ''] : []), text]
    return `<tr${isWrong(turn) ? ' class="wrong"' : ''}><th scope="row">${i + 1}</th>${cells.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`
  })
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title><style>${PAGE_STYLE}</style></head><body><main>
<h1>${escaped(title)}</h1>
<p class="lead">${lead}</p>
<figure tabindex="0" style="--least:${Math.round(0.8 * width)}px;--most:${Math.round(1.6 * width)}px">${svg}</figure>
${summary ? `<p class="summary">${escaped(summary).replaceAll('\n', '<br>')}</p>` : ''}
<div class="wide" tabindex="0"><table><thead><tr>${head.map((name) => `<th scope="col">${name}</th>`).join('')}</tr></thead>
<tbody>${rows.join('')}</tbody></table></div>
</main></body></html>
`
}

const PAGE_STYLE = `
:root{color-scheme:light dark;--paper:#f6f5f2;--sheet:#fff;--ink:#1d2733;--soft:#5a6472;--rule:#e5e3dd;--warn:#a33a1f}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--sheet:#1c2229;--ink:#e8e6e1;--soft:#9fa8b4;--rule:#2f3842;--warn:#f0975f}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1008px;margin:0 auto;padding:48px 24px 72px}h1{font-size:32px;line-height:1.2;margin:0 0 12px;overflow-wrap:anywhere}
.lead{font-size:18px;color:var(--soft);margin:0 0 16px}figure{margin:0 0 24px;background:var(--sheet);padding:16px;overflow:auto}
figure svg.trajectory{width:100%;height:auto;display:block;margin:0 auto;min-width:var(--least);max-width:var(--most)}.summary{background:var(--sheet);padding:16px;margin:0 0 24px;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;background:var(--sheet);font-size:14px}
th,td{padding:6px 12px;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}th{font-weight:500;color:var(--soft)}
td:last-child{overflow-wrap:anywhere}.wrong td:nth-child(3){color:var(--warn)}.wide{overflow:auto}
@media (max-width:480px){main{padding:24px 12px 48px}h1{font-size:24px}.lead{font-size:16px}figure,.summary{padding:8px}th,td{padding:6px 8px}}`
