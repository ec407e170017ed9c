// Opens a training's report in headless Chromium and compares what it shows with metrics.jsonl: each number of the table, and
// the points of the curves read back through the axes. `node test/check-training-report.mjs [DIR] [SCREENSHOT.png]`.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { checkPage } from './browser.mjs'

const [directory = 'trainer-output', screenshot] = process.argv.slice(2)
const read = (/** @type {string} */ name) => readFileSync(join(directory, name), 'utf8')
/** @type {Record<string, any>[]} */
const lines = read('metrics.jsonl')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line))
const run = JSON.parse(read('run.json'))

const report = join(directory, 'report.html')
console.log(`${report}: ${await checkPage(report, look, compare, screenshot)}, all as in metrics.jsonl`)

/** Runs in the page. */
function look() {
  const all = (/** @type {string} */ query, root = document) => [...root.querySelectorAll(query)]
  const text = (/** @type {Element | null} */ element) => (element?.textContent ?? '').trim()
  return {
    title: text(document.querySelector('h1')),
    facts: Object.fromEntries(all('data[data-from]').map((data) => [data.dataset.from, Number(data.value)])),
    cells: all('data[data-line]').map((data) => ({ ...data.dataset, value: Number(data.value), text: text(data) })),
    charts: all('[data-chart]').map((figure) => ({
      ticks: all('[data-axis]', figure).map((tick) => ({
        axis: tick.dataset.axis,
        at: Number(tick.getAttribute(tick.dataset.axis)),
        value: Number(text(tick)),
      })),
      lines: all('[data-series]', figure).map((line) => ({
        name: line.dataset.series,
        points: [...line.points].map(({ x, y }) => [x, y]),
      })),
    })),
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    heights: all('h1, h2, table, svg').map((element) => element.getBoundingClientRect().height),
  }
}

/** @param {any} seen what `look` returned */
function compare(seen) {
  assert.equal(seen.title, run.name)
  assert.equal(seen.facts.globalStep, lines.at(-1)?.step)
  assert.equal(seen.facts.maxSteps, run.maxSteps)
  for (const { line, name, value, text } of seen.cells) {
    assert.equal(value, lines[line]?.[name], `line ${line}: ${name}`)
    assert.ok(
      Math.abs(Number(text) - value) <= Math.abs(value) * 1e-3,
      `line ${line}: ${name} ${value} is shown as ${text}`,
    )
  }
  const names = [...new Set(lines.flatMap((line) => Object.keys(line)))].filter(
    (name) => !/^(step|epoch|speed)$/.test(name),
  )
  const curves = seen.charts.flatMap((/** @type {any} */ { lines, ticks }) =>
    lines.map((/** @type {any} */ line) => ({ ...line, ticks })),
  )
  assert.deepEqual(curves.map((/** @type {any} */ { name }) => name).sort(), names.sort())
  let drawn = 0
  for (const { name, points, ticks } of curves) {
    const wanted = lines.filter((line) => typeof line[name] === 'number')
    assert.equal(points.length, wanted.length, name)
    const [x, y] = ['x', 'y'].map((axis) => axisOf(ticks, axis))
    for (const [i, [px, py]] of points.entries()) {
      const [step, value] = [wanted[i]?.step, wanted[i]?.[name]]
      assert.ok(Math.abs(x.read(px) - step) <= x.fine, `${name}: point ${i} stands at step ${x.read(px)}, not ${step}`)
      assert.ok(
        Math.abs(y.read(py) - value) <= y.fine,
        `${name} at step ${step} is drawn at ${y.read(py)}, not ${value}`,
      )
      drawn++
    }
  }
  assert.ok(!seen.wide, 'the page is wider than its place')
  assert.ok(seen.heights.every((/** @type {number} */ height) => height > 0))
  return `${seen.cells.length} numbers, ${drawn} points of ${curves.length} curves`
}

/**
 * Reads values off an axis, from its first and last tick; `fine` is what a hundredth of a pixel comes to.
 * @param {{ axis: string, at: number, value: number }[]} ticks
 * @param {string} axis
 */
function axisOf(ticks, axis) {
  const own = ticks.filter((tick) => tick.axis === axis)
  const [first, last] = [own[0], own[own.length - 1]]
  const slope = (last.value - first.value) / (last.at - first.at)
  return { read: (/** @type {number} */ at) => first.value + (at - first.at) * slope, fine: Math.abs(slope) * 0.011 }
}
