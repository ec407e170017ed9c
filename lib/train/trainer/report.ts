import { join } from 'node:path'
import { writeAtomicallySync } from '../../base/atomic.js'
import { DataError } from '../../base/errors.js'
import { escaped } from '../../base/words.js'
import { chart, type Series } from './chart.js'
import type { LoggedRun, Logger, Outcome } from './logger.js'
import { groupedName } from './logger.js'
import { type MetricsLine, metricsLine, REPORT_FILE } from './run-files.js'

/** Writes `report.html` when training ends: one self-contained page with all logged values. */
export class HtmlReportLogger implements Logger {
  end({ args, state }: LoggedRun, outcome: Outcome): void {
    const lines = state.logHistory.map((entry) => JSON.parse(metricsLine(entry)) as MetricsLine)
    const facts = {
      outcome,
      globalStep: state.globalStep,
      maxSteps: state.maxSteps,
      epoch: state.epoch,
      samplesSeen: state.samplesSeen,
      seconds: state.seconds,
      bestMetric: state.bestMetric,
      bestStep: state.bestStep,
    }
    writeAtomicallySync(
      join(args.outputDir, REPORT_FILE),
      DataError,
      reportPage(args.runName, lines, facts, { ...args }),
    )
  }
}

export interface ReportFacts {
  outcome: Outcome
  globalStep: number
  maxSteps: number
  epoch: number
  samplesSeen: number
  seconds: number
  bestMetric: number | null
  bestStep: number | null
}

/**
 * Return the report page. Each number is in a `<data>` element that names its source; test/check-training-report.mjs
 * compares them.
 */
export function reportPage(
  name: string,
  lines: readonly MetricsLine[],
  facts: ReportFacts,
  args: Readonly<Record<string, unknown>>,
): string {
  const { outcome, bestStep } = facts
  const fact = (key: keyof ReportFacts) => {
    const value = facts[key] as number
    return `<data data-from="${key}" value="${value}">${shown(value)}</data>`
  }
  const best =
    bestStep === null
      ? ''
      : `<p>The best evaluation: ${escaped(String(args.metricForBestModel))} ${fact('bestMetric')} at step ${fact('bestStep')}.</p>`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(name)}</title><style>${STYLE}</style></head><body><main>
<h1>${escaped(name)}</h1>
<p class="lead">${SAID[outcome]} after ${fact('globalStep')} of ${fact('maxSteps')} steps, ${fact('epoch')} epochs,
${fact('samplesSeen')} samples and ${fact('seconds')} seconds.</p>${best}
${charts(lines)}
<h2>What was measured</h2>${table(lines)}
<h2>Arguments</h2><table class="arguments"><tbody>${Object.entries(args)
    .map(([key, value]) => `<tr><th scope="row">${key}</th><td>${escaped(JSON.stringify(value))}</td></tr>`)
    .join('')}</tbody></table>
</main></body></html>
`
}

const SAID: Record<Outcome, string> = {
  finished: 'Finished',
  stopped: 'Stopped early',
  interrupted: 'Interrupted',
}

/** Return the metric names in the order in which they were first logged, without step and epoch. */
const namesOf = (lines: readonly MetricsLine[]): string[] => [
  ...new Set(lines.flatMap((line) => Object.keys(line).filter((name) => !['step', 'epoch', 'speed'].includes(name)))),
]

/** Draw charts; the training and evaluation curves of the same metric share one chart. */
function charts(lines: readonly MetricsLine[]): string {
  const byTitle = new Map<string, Series[]>()
  for (const name of namesOf(lines)) {
    const points = lines.flatMap((line) => {
      const value = line[name]
      return typeof value === 'number' ? [[line.step, value] as [number, number]] : []
    })
    const title = groupedName(name).replace(/^(eval|train)\//, '')
    if (points.length > 0) byTitle.set(title, [...(byTitle.get(title) ?? []), { name, points }])
  }
  return [...byTitle].map(([title, series]) => `<h2>${escaped(title)}</h2>${chart(title, series)}`).join('')
}

const MOST_ROWS = 200

function table(lines: readonly MetricsLine[]): string {
  const names = namesOf(lines)
  const every = Math.ceil(lines.length / MOST_ROWS)
  const rows = lines
    .map((line, i) => ({ line, i }))
    .filter(({ line, i }) => i % every === 0 || i === lines.length - 1 || 'evalLoss' in line)
    .map(({ line, i }) => {
      const cells = ['step', 'epoch', ...names].map((name) => {
        const value = line[name]
        if (typeof value !== 'number') return `<td>${value === null ? 'not finite' : ''}</td>`
        return `<td><data data-line="${i}" data-name="${escaped(name)}" value="${value}">${shown(value)}</data></td>`
      })
      return `<tr>${cells.join('')}</tr>`
    })
  const head = ['step', 'epoch', ...names].map((name) => `<th scope="col">${escaped(name)}</th>`).join('')
  return `<div class="wide"><table><thead><tr>${head}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`
}

/** Format a number with four significant digits; integers in full. */
function shown(value: number): string {
  if (Number.isInteger(value)) return String(value)
  const size = Math.abs(value)
  return size < 1e-3 || size >= 1e6 ? value.toExponential(3) : value.toPrecision(4)
}

const STYLE = `
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;background:#f6f5f2;color:#1d2733;font:16px/1.6 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:860px;margin:0 auto;padding:48px 24px 72px}
h1{font-size:32px;line-height:1.2;margin:0 0 12px;overflow-wrap:anywhere}h2{font-size:19px;margin:40px 0 12px}
.lead{font-size:18px;color:#3b4756;margin:0 0 16px}
table{border-collapse:collapse;width:100%;background:#fff;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:right;border-bottom:1px solid #e5e3dd;white-space:nowrap}th{font-weight:500;color:#5a6472}
.wide{overflow:auto;max-height:480px}.arguments th,.arguments td{text-align:left;white-space:normal;overflow-wrap:anywhere}
figure{margin:0;background:#fff;padding:16px}svg{width:100%;height:auto;display:block}
svg text{font-size:13px;fill:#5a6472}svg .name{font-weight:600}.grid line{stroke:#e5e3dd}
polyline{fill:none;stroke-width:2;stroke-linejoin:round}`
