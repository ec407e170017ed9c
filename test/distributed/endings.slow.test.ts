import { describe, expect, it } from 'vitest'
import { PATIENCE } from '../patience.js'
import { type Ending, type Running, startRanks } from './ranks.js'

// Processes that die, hang and leave. All are ended by their own number.

function endOf(running: Running | undefined): Promise<Ending> {
  if (!running) throw new Error('no process was started')
  return running.ended
}

describe('when a rank is gone', () => {
  it.each(['a rank dies in a collective', 'a rank dies in backward'])(
    '%s: the other gets a typed error',
    async (name) => {
      const [alive, dead] = await startRanks(name)
      const { code, stderr, values } = await endOf(alive)
      expect([code, stderr]).toEqual([0, ''])
      expect(values[0]).toMatchObject({ name: 'DistributedError', code: 'ERR_DISTRIBUTED' })
      // A closed connection is seen at once, not after the timeout.
      expect(values[0].ms).toBeLessThan(PATIENCE / 2)
      expect((await endOf(dead)).signal).toBe('SIGKILL')
    },
  )

  it('a rank hangs: the other gets a typed error after the timeout', async () => {
    const [alive, hanging] = await startRanks('a rank hangs', 8000)
    const { code, values } = await endOf(alive)
    hanging?.child.kill('SIGKILL')
    await hanging?.ended
    expect(code).toBe(0)
    expect(values[0].name).toBe('DistributedError')
    expect(values[0].message).toMatch(/allReduce on rank 0 of 2 failed: .*The timeout is 8000 ms/s)
    expect(values[0].ms).toBeGreaterThan(7000)
    expect(values[0].ms).toBeLessThan(PATIENCE / 2)
  })

  it('a rank never comes: initProcessGroup gives up after the timeout', async () => {
    const [alive, missing] = await startRanks('a rank dies in a collective', 8000)
    missing?.child.kill('SIGKILL')
    const { code, stderr, ms } = await endOf(alive)
    await missing?.ended
    expect(code).toBe(1)
    expect(stderr).toMatch(/DistributedError: initProcessGroup on rank 0 of 2 failed/)
    expect(ms).toBeLessThan(PATIENCE / 2)
  })
})

describe('a process ends cleanly', () => {
  it('with process.exit() while a collective waits', async () => {
    const [leaving, other] = await startRanks('exit in a collective')
    const { code, signal, stderr, ms } = await endOf(leaving)
    other?.child.kill('SIGKILL')
    await other?.ended
    expect([code, signal, stderr]).toEqual([3, null, ''])
    expect(ms).toBeLessThan(PATIENCE / 2)
  })

  it('with an uncaught error, which is shown, while a collective waits', async () => {
    const [leaving, other] = await startRanks('an error while a collective waits')
    const { code, signal, stderr, ms } = await endOf(leaving)
    other?.child.kill('SIGKILL')
    await other?.ended
    expect([code, signal]).toEqual([1, null])
    expect(stderr).toMatch(/on purpose/)
    expect(ms).toBeLessThan(PATIENCE / 2)
  })

  it('without destroyProcessGroup', async () => {
    for (const { code, signal, stderr, values } of await Promise.all(
      (await startRanks('end without destroying')).map(({ ended }) => ended),
    )) {
      expect([code, signal, stderr]).toEqual([0, null, ''])
      expect(values).toEqual(['end'])
    }
  })
})
