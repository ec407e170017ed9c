import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { PATIENCE } from '../patience.js'
import { launch, scenarioFile } from './ranks.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-launch-'))
afterAll(() => rmSync(folder, { recursive: true }))

function script(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const REPORT = `
const { RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, OMP_NUM_THREADS } = process.env
console.log(JSON.stringify([RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, Number(OMP_NUM_THREADS) > 0, process.argv.slice(2)]))
process.stderr.write('no line end')
`

const prefixed = (text: string) => text.trimEnd().split('\n').sort()

describe('voxtorch launch', () => {
  it('sets the environment, passes arguments on and puts the rank before each line', async () => {
    const { code, stdout, stderr } = await launch(['--nproc', '2', script('a.mjs', REPORT), '--lr', '3', '-v']).ended
    expect(code).toBe(0)
    expect(prefixed(stdout)).toEqual(
      ['0', '1'].map(
        (rank) => `[${rank}] ${JSON.stringify([rank, rank, '2', '2', '127.0.0.1', true, ['--lr', '3', '-v']])}`,
      ),
    )
    expect(prefixed(stderr)).toEqual(['[0] no line end', '[1] no line end'])
  })

  it('runs TypeScript where tsx is installed', async () => {
    // tsx is looked for from the script, which lies in this project.
    const { code, stdout } = await launch(['--nproc=2', new URL('./hello.ts', import.meta.url).pathname]).ended
    expect(code).toBe(0)
    expect(prefixed(stdout)).toEqual(['[0] hello from 0 of 2', '[1] hello from 1 of 2'])
  })

  it('ends all ranks when one fails, says which and has its exit code', async () => {
    const { code, stderr, ms } = await launch(['--nproc', '2', scenarioFile, 'only rank 1 fails']).ended
    expect(code).toBe(1)
    expect(stderr).toMatch(/\[1\] Error: rank 1 has a bug/)
    expect(stderr).toMatch(/voxtorch launch: rank 1 \(process \d+\) ended with code 1; ending the other ranks/)
    expect(ms).toBeLessThan(PATIENCE / 2)
  })

  it('ends all ranks when one is killed', async () => {
    const text = `console.log(process.pid)\nif (process.env.RANK === '1') process.kill(process.pid, 'SIGKILL')\nsetTimeout(() => {}, 1e8)`
    const { code, stdout, stderr, ms } = await launch(['--nproc', '2', script('kill.mjs', text)]).ended
    expect(code).toBe(128 + 9)
    expect(stderr).toMatch(/rank 1 \(process \d+\) was ended by SIGKILL/)
    expect(ms).toBeLessThan(PATIENCE / 2)
    const survivor = Number(/\[0\] (\d+)/.exec(stdout)?.[1] ?? 0)
    if (survivor > 0) expect(() => process.kill(survivor, 0)).toThrow(/ESRCH/)
  })

  it('passes signals on and waits while the ranks save', async () => {
    let ready = 0
    const running = launch(['--nproc', '2', scenarioFile, 'wait for a signal'], {
      onLine: (line) => {
        if (line.includes('ready') && ++ready === 2) running.child.kill('SIGTERM')
      },
    })
    const { code, stdout, ms } = await running.ended
    expect(code).toBe(128 + 15)
    expect(stdout).toMatch(/\[0\] \{"saved":0\}/)
    expect(stdout).toMatch(/\[1\] \{"saved":1\}/)
    expect(ms).toBeLessThan(PATIENCE / 2)
  })

  it('that is killed takes its ranks with it, the stubborn after ten seconds', { timeout: 120_000 }, async () => {
    const library = new URL('../../dist/index.js', import.meta.url).href
    const text = `
      const { ones } = await import(${JSON.stringify(library)})
      ones([1])
      if (process.env.RANK === '1') process.on('SIGTERM', () => {})
      console.log('pid ' + process.pid)
      setInterval(() => {}, 1000)`
    const pids: number[] = []
    const running = launch(['--nproc', '2', script('stay.mjs', text)], {
      limit: 100_000,
      onLine: (line) => {
        const [, pid] = /pid (\d+)/.exec(line) ?? []
        if (pid && pids.push(Number(pid)) === 2) running.child.kill('SIGKILL')
      },
    })
    await running.ended
    expect(pids).toHaveLength(2)
    const isAlive = (pid: number) => {
      try {
        process.kill(pid, 0)
        // One that has ended and that nobody has asked about is still there.
        return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
      } catch {
        return false
      }
    }
    for (const pid of pids) {
      while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 200))
    }
  })

  it('can run several times at once: ports do not collide', async () => {
    const all = await Promise.all(
      [1, 2, 3].map(() => launch(['--nproc', '2', scenarioFile, 'end without destroying']).ended),
    )
    for (const { code, stdout } of all) {
      expect(code).toBe(0)
      expect(prefixed(stdout)).toEqual(['[0] "end"', '[1] "end"'])
    }
  })

  it.each([
    [[], /--nproc: expected the number of processes, got none/],
    [['--nproc', '0', 'x.js'], /expected a number of processes/],
    [['--nproc', '2'], /expected a script, got none/],
    [['--nproc', '2', '/does/not/exist.js'], /the script does not exist/],
    [['--procs', '2', 'x.js'], /the unknown option "--procs"/],
  ])('explains what is wrong with %j', async (args, message) => {
    const { code, stderr } = await launch(args).ended
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
  })
})
