import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { ConfigError, ProgressBar } from '../../lib/index.js'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

function stream(isTTY: boolean, columns = 80) {
  const written: string[] = []
  return { written, isTTY, columns, write: (text: string) => written.push(text) }
}

it('redraws one line on a terminal, at intervals, and ends it', () => {
  const to = stream(true, 100)
  const bar = new ProgressBar({ total: 4, label: 'epoch 1', stream: to })
  for (let i = 0; i < 4; i++) {
    vi.advanceTimersByTime(500)
    bar.tick(1, { loss: 1 / (i + 1), lr: 2e-5 })
    bar.tick(0)
  }
  bar.close()
  bar.close()
  bar.tick()
  expect(to.written).toHaveLength(7)
  const [full, empty] = ['█'.repeat(15), '░'.repeat(15)]
  expect(to.written[0]).toBe(`\repoch 1 0% ${empty}${empty}  0/4  00:00  0 it/s\u001b[K`)
  expect(to.written[2]).toBe(
    `\repoch 1 50% ${full}${empty}  2/4  00:01<00:01  2 it/s  loss 0.5000  lr 2.000e-5\u001b[K`,
  )
  expect(to.written[5]).toBe(`\repoch 1 100% ${full}${full}  4/4  00:02  2 it/s  loss 0.2500  lr 2.000e-5\u001b[K`)
  expect(to.written[6]).toBe('\n')
  // The cursor is never hidden, so nothing has to bring it back.
  expect(to.written.join('')).not.toContain('\u001b[?25')
})

it('never writes a line wider than the terminal', () => {
  for (const columns of [5, 20, 40, 60, 120]) {
    const to = stream(true, columns)
    const bar = new ProgressBar({ total: 10, label: 'a label', stream: to, interval: 0 })
    for (let i = 0; i < 10; i++) bar.tick(1, { loss: 0.123456, name: 'something' })
    for (const text of to.written) expect(text.slice(1, -3).length).toBeLessThan(columns)
  }
})

it('takes a terminal that states no size for one of 80 columns', () => {
  for (const columns of [undefined, 0, Number.NaN]) {
    const to = { ...stream(true), columns }
    new ProgressBar({ total: 4, label: 'epoch', stream: to })
    expect(to.written).toEqual([`\repoch 0% ${'░'.repeat(30)}  0/4  00:00  0 it/s\u001b[K`])
  }
})

it('writes plain lines elsewhere, and a last one', () => {
  const to = stream(false)
  const bar = new ProgressBar({ total: 30, stream: to, unit: 'batches' })
  for (let i = 0; i < 30; i++) {
    vi.advanceTimersByTime(1000)
    bar.tick()
  }
  bar.print('saved')
  bar.close()
  expect(to.written).toEqual([
    '33%  10/30 batches  00:10<00:20  1 batches/s\n',
    '66%  20/30 batches  00:20<00:10  1 batches/s\n',
    '100%  30/30 batches  00:30  1 batches/s\n',
    'saved\n',
    '100%  30/30 batches  00:30  1 batches/s\n',
  ])
})

it('counts without a total and prints above the bar', () => {
  const to = stream(true)
  const bar = new ProgressBar({ stream: to })
  vi.advanceTimersByTime(40_000)
  bar.tick(10)
  bar.print('hello')
  expect(bar.count).toBe(10)
  expect(to.written[1]).toBe('\r10  00:40  4 s/it\u001b[K')
  expect(to.written.slice(2)).toEqual(['\r\u001b[Khello\n', '\r10  00:40  4 s/it\u001b[K'])
  expect(() => new ProgressBar({ total: -1 })).toThrow(ConfigError)
  expect(() => new ProgressBar({ interval: -1 })).toThrow(ConfigError)
  expect(() => new ProgressBar({ interval: Number.NaN })).toThrow(ConfigError)
})

it('keeps no process alive that does not close it', () => {
  const before = process.getActiveResourcesInfo()
  new ProgressBar({ total: 10, stream: stream(true) }).tick(5)
  new ProgressBar({ total: 10, stream: stream(false) }).tick(5)
  expect(process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length).toBeLessThanOrEqual(
    before.filter((name) => name === 'Timeout').length,
  )
})
