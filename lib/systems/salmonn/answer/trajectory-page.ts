import { requireString } from '../../../base/check.js'
import { escaped } from '../../../base/words.js'
import { counted, page, table } from '../../../kit/figure.js'
import { drawTrajectory, isWrong } from './trajectory-figure.js'
import { checkTrajectory, type EmotionalTrajectory, speakersOf } from './trajectory-report.js'

/** Render a self-contained HTML page with the figure of {@link trajectorySvg}, the summary and a table of the turns. */
export function trajectoryPage(trajectory: EmotionalTrajectory, title = 'Emotional trajectory'): string {
  const { turns, summary } = checkTrajectory('trajectoryPage', trajectory)
  requireString('trajectoryPage', 'title', title)
  const judged = turns.filter(({ reference }) => reference !== undefined)
  const right = judged.filter((turn) => !isWrong(turn)).length
  const { svg, width } = drawTrajectory(trajectory, title)
  const speakers = speakersOf(turns).length
  const verdict = `${right} of ${judged.length} emotions are correct; a ring marks the reference of a wrong one.`
  const head = ['Turn', 'Speaker', 'Emotion', ...(judged.length > 0 ? ['Reference'] : []), 'Text']
  const rows = turns.map((turn, i) => {
    const { speaker, emotion, reference = '', text = '' } = turn
    const cells = [String(i + 1), speaker, emotion, ...(judged.length > 0 ? [reference] : []), text]
    return { cells, wrong: isWrong(turn) }
  })
  const sizes = `--least:${Math.round(0.8 * width)}px;--most:${Math.round(1.6 * width)}px`
  return page({
    title,
    lead: `${counted(turns.length, 'turn')}, ${counted(speakers, 'speaker')}.${judged.length > 0 ? ` ${verdict}` : ''}`,
    parts: [
      `<figure tabindex="0" style="${sizes}">${svg}</figure>`,
      ...(summary ? [`<p class="summary">${escaped(summary).replaceAll('\n', '<br>')}</p>`] : []),
      table(head, rows),
    ],
    style: STYLE,
  })
}

const STYLE = `
figure svg.trajectory{margin:0 auto;min-width:var(--least);max-width:var(--most)}
.summary{background:var(--sheet);padding:16px;margin:0 0 24px;overflow-wrap:anywhere}td:last-child{overflow-wrap:anywhere}
@media (max-width:480px){.summary{padding:8px}}`
