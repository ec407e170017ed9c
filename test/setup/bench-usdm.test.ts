import { expect, it } from 'vitest'
import { isMet, type Row } from '../../bench/report.js'
import { summarise } from '../../bench/statistics.js'
import { oursAgainstOurs } from '../../bench/usdm.js'

const row = (label: string, ...times: number[]): Row => ({ label, unit: 'µs', voxtorch: summarise(times) })
const units = (batched: number) => [
  row('units of 1,000 clips of 1 to 5 s (12 layers of 768), batched', batched),
  row('the same, one by one', 100),
]
const reply = (first: number) => [
  row('a reply of 6 s to 3 s, to its first audio', first, first, first),
  row('the same, until all of it is there', 90, 100, 110),
]

it('`npm run bench -- usdm --check` misses what takes too much of the time of another case of ours', () => {
  const judged = (rows: Row[]) => oursAgainstOurs(rows).map((one) => [one.ratio, one.target, isMet(one)])
  expect(judged([...units(66), ...reply(39)])).toEqual([
    [0.66, 0.67, true],
    [0.39, 0.4, true],
  ])
  expect(judged([...units(68), ...reply(41)])).toEqual([
    [0.68, 0.67, false],
    [0.41, 0.4, false],
  ])
  // What was not measured has no row.
  expect(judged(units(50).slice(0, 1))).toEqual([])
  expect(judged(reply(10))).toHaveLength(1)
})
