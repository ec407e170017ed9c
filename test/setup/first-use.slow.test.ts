import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const library = fileURLToPath(new URL('../../dist/index.js', import.meta.url))

/** Run a program that imports the library as `vt`; returns what it prints. */
function run(program: string, env: Record<string, string> = {}) {
  const source = `const vt = await import(${JSON.stringify(library)})\n${program}`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  })
  return { stdout: stdout.trim(), stderr }
}
const mapped = `(await import('node:fs')).readFileSync('/proc/self/maps', 'utf8').includes('libtorch_cpu')`

describe('libtorch is loaded when it is first used', () => {
  it.runIf(process.platform === 'linux')('and not by an import', () => {
    const { stdout } = run(`console.log(${mapped}); vt.ones([2]); console.log(${mapped})`)
    expect(stdout).toBe('false\ntrue')
  })

  it.each([
    ['a tensor', 'vt.tensor([1, 2]).sum().item()', '3'],
    [
      'a list longer than the first buffer for arguments',
      'vt.tensor([...Array(20_000).keys()]).sum().item()',
      '199990000',
    ],
    ['a typed array', 'vt.tensor(new Float32Array([1, 2.5])).sum().item()', '3.5'],
    ['a scope', 'vt.scope(() => 7)', '7'],
    ['a random number', 'vt.manualSeed(1) ?? vt.rand([1]).shape[0]', '1'],
    ['a layer', 'new vt.Linear(2, 3).forward(vt.zeros([1, 2])).shape.join()', '1,3'],
    ['a queued operator', '(await vt.ops.async.add(vt.ones([1]), 1)).item()', '2'],
    ['a question about memory', 'vt.memoryStats().liveTensors', '0'],
    ['a setting', 'vt.setNumThreads(1) ?? vt.getNumThreads()', '1'],
  ])('by %s', (_, expression, printed) => {
    expect(run(`console.log(${expression})`)).toEqual({ stdout: printed, stderr: '' })
  })

  it('in a worker of its own too', () => {
    const worker = `import(${JSON.stringify(library)}).then((vt) => console.log(vt.ones([3]).sum().item()))`
    const { stdout } = run(`const { Worker } = await import('node:worker_threads')
      await new Promise((done) => new Worker(${JSON.stringify(worker)}, { eval: true }).on('exit', done))`)
    expect(stdout).toBe('3')
  })

  it('and where it cannot be loaded, that use says so, each time', () => {
    const program = `for (let i = 0; i < 2; i++)
      try { vt.ones([2]) } catch (error) { console.log(error.name, error.message.split('.')[0]) }`
    const { stdout } = run(program, { LIBTORCH: '/nowhere' })
    expect(stdout.split('\n')).toHaveLength(2)
    for (const line of stdout.split('\n')) expect(line).toMatch(/^LibtorchError .*libtorch/i)
  })
})
