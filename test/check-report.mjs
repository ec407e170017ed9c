// Opens the demo's report in headless Chromium and compares everything on it with demo.json: each number, the points of the
// curves read back through the axes, sentences, classes and audio clips. `node test/check-report.mjs [DIR] [SCREENSHOT.png]`.
// Needs Chromium (its path in CHROMIUM, or on the PATH) and nothing else: it is driven over its debugging pipe.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { checkPage } from './browser.mjs'

const [directory = 'demo-output', screenshot] = process.argv.slice(2)
const outcome = JSON.parse(readFileSync(join(directory, 'demo.json'), 'utf8'))

const report = join(directory, 'report.html')
console.log(`${report}: ${await checkPage(report, look, compare, screenshot)}, all as in demo.json`)

/** Runs in the page. */
async function look() {
  const all = (/** @type {string} */ query, root = document) => [...root.querySelectorAll(query)]
  const text = (/** @type {Element | null} */ element) => (element?.textContent ?? '').replace(/\s+/g, ' ').trim()
  const loose = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const { textContent, parentElement } = walker.currentNode
    const known = parentElement?.closest('data, [data-axis], blockquote, .voice, style')
    if (!known && /(?<![A-Za-z])\d/.test(textContent ?? '')) loose.push(textContent)
  }
  const audio = all('audio')
  const metadata = audio.map((player) =>
    player.readyState > 0
      ? null
      : new Promise((done) => {
          player.onloadedmetadata = player.onerror = done
          player.load()
        }),
  )
  await Promise.all(metadata)
  return {
    numbers: all('data').map((data) => ({ ...data.dataset, value: data.value, text: text(data) })),
    loose,
    ticks: all('[data-axis]').map((tick) => ({
      axis: tick.dataset.axis,
      at: Number(tick.getAttribute(tick.dataset.axis)),
      value: Number(text(tick)),
    })),
    lines: all('[data-series]').map((line) => ({
      name: line.dataset.series,
      points: [...line.points].map(({ x, y }) => [x, y]),
    })),
    bars: all('.bar span').map((bar) => bar.getBoundingClientRect().width / bar.parentElement.clientWidth),
    rows: all('.scores tbody th').map(text),
    classes: all('.confusion tbody th').map(text),
    examples: all('[data-example]').map((example) => ({
      text: text(example.querySelector('blockquote')),
      truth: text(example.querySelector('.truth')),
      guesses: all('li', example).map((item) => ({ right: item.className === 'right', text: text(item) })),
    })),
    seconds: audio.map((player) => player.duration),
    synthetic: /voices are synthetic/.test(text(document.body)),
    wide: [document.documentElement, ...all('.wide')].some((box) => box.scrollWidth > box.clientWidth),
    heights: all('h1, h2, table, svg, article').map((element) => element.getBoundingClientRect().height),
  }
}

/** @param {any} seen what `look` returned */
function compare(seen) {
  const formats = {
    percent: (/** @type {number} */ value) => `${(Math.round(value * 1000) / 10).toFixed(1)} %`,
    count: (/** @type {number} */ value) => String(value).replace(/\B(?=(\d{3})+$)/g, ','),
    seconds: (/** @type {number} */ value) => `${Math.round(value)} s`,
  }
  const at = (/** @type {string} */ path) =>
    path.split('.').reduce((/** @type {any} */ object, key) => object[key], outcome)
  for (const { from, as, text, value } of seen.numbers) {
    assert.equal(Number(value), at(from), from)
    assert.equal(text, formats[/** @type {'count'} */ (as)](at(from)), from)
  }
  const shown = new Set(seen.numbers.map((/** @type {any} */ number) => number.from))
  const wanted = [
    ...outcome.rows.flatMap((/** @type {any} */ _, /** @type {number} */ i) => [`rows.${i}.accuracy`, `rows.${i}.f1`]),
    ...outcome.confusion.flatMap((/** @type {number[]} */ row, /** @type {number} */ i) =>
      row.map((_, j) => `confusion.${i}.${j}`),
    ),
    ...['clips', 'sentences', 'voices'].flatMap((name) => [`${name}.train`, `${name}.test`]),
  ]
  assert.deepEqual(
    wanted.filter((path) => !shown.has(path)),
    [],
    'numbers of demo.json that the report lacks',
  )
  assert.deepEqual(seen.loose, [], 'numbers that do not come from demo.json')

  const points = seen.lines.map((/** @type {any} */ line) => {
    const values = line.points.map((/** @type {number[]} */ [x, y]) => [
      read(seen.ticks, 'x', x),
      read(seen.ticks, 'y', y),
    ])
    const loss = outcome.loss[line.name]
    assert.equal(values.length, loss.length, line.name)
    for (const [i, [epoch, value]] of values.entries()) {
      if (outcome.epochs > 1) assert.ok(Math.abs(epoch - (i + 1)) < 0.01, `${line.name}: point ${i} stands at ${epoch}`)
      assert.ok(Math.abs(value - loss[i]) < 0.005, `${line.name}: epoch ${i + 1} is drawn at ${value}, not ${loss[i]}`)
    }
    return values.length
  })
  assert.deepEqual(
    seen.lines.map((/** @type {any} */ line) => line.name),
    Object.keys(outcome.loss),
  )
  assert.deepEqual(
    seen.rows,
    outcome.rows.map((/** @type {any} */ row) => row.input),
  )
  assert.deepEqual(seen.classes, outcome.labels)

  assert.equal(seen.examples.length, outcome.examples.length)
  for (const [i, example] of outcome.examples.entries()) {
    const { text, truth, guesses } = seen.examples[i]
    assert.equal(text, example.text)
    assert.ok(truth.startsWith(outcome.labels[example.truth]), truth)
    const expected = Object.entries(example.guesses).map(([name, guess]) => ({
      right: guess === example.truth,
      text: `${name} ${outcome.labels[guess]}`,
    }))
    assert.deepEqual(guesses, expected)
    assert.ok(seen.seconds[i] > 0.5 && seen.seconds[i] < 20, `clip ${i} lasts ${seen.seconds[i]} s`)
  }
  assert.ok(seen.synthetic, 'the report does not say that the voices are synthetic')
  assert.ok(!seen.wide, 'the page or a table is wider than its place')
  assert.ok(seen.heights.every((/** @type {number} */ height) => height > 0))
  const drawn = points.reduce((/** @type {number} */ sum, /** @type {number} */ count) => sum + count, 0)
  return `${seen.numbers.length} numbers, ${drawn} points of ${points.length} curves, ${seen.seconds.length} audio clips`
}

/**
 * The value at a place, from the first and last tick of its axis.
 * @param {{ axis: string, at: number, value: number }[]} ticks
 * @param {string} axis
 * @param {number} place
 */
function read(ticks, axis, place) {
  const own = ticks.filter((tick) => tick.axis === axis)
  const [first, last] = [own[0], own[own.length - 1]]
  if (first.at === last.at) return first.value
  return first.value + ((place - first.at) * (last.value - first.value)) / (last.at - first.at)
}
