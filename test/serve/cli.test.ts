import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { parseServe } from '../../lib/cli/serve.js'
import { ConfigError } from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { ask, begin, call, text, user } from './client.js'
import { Parrot } from './models.mjs'

const models = { parrot: async () => new Parrot() }
const parsed = (line: string, env = {}) => parseServe(line.split(' '), models, env)

describe('voxtorch serve', () => {
  it('reads its command line', () => {
    expect(parsed('parrot --model dir')).toEqual({
      load: models.parrot,
      directory: 'dir',
      loading: {},
      options: { port: 8080 },
      quiet: false,
    })
    const all =
      'parrot --model dir --device cuda --dtype bfloat16 --host 0.0.0.0 --port 0 --api-key some-long-key --max-body 1.5 ' +
      '--max-audio 90.5 --max-pixels 2.5 --max-tokens 64 --concurrent 3 --queue 0 --answer-timeout 7 --allow-host a.example --quiet'
    expect(parsed(all)).toMatchObject({
      loading: { device: 'cuda', dtype: 'bfloat16' },
      options: {
        host: '0.0.0.0',
        port: 0,
        apiKey: 'some-long-key',
        maxBodyBytes: 1_500_000,
        maxAudioSeconds: 90.5,
        maxPixels: 2_500_000,
        maxNewTokens: 64,
        maxConcurrent: 3,
        maxQueued: 0,
        answerTimeout: 7,
        allowedHosts: ['a.example', 'localhost', '127.0.0.1', '[::1]'],
      },
      quiet: true,
    })
    expect(parsed('parrot --model dir', { VOXTORCH_API_KEY: 'from-variable' })?.options.apiKey).toBe('from-variable')
  })

  it.each([
    ['--model dir', /expected a kind of model: parrot; got none/],
    ['parot --model dir', /got "parot". Did you mean "parrot"/],
    ['constructor --model dir', /got "constructor"/],
    ['parrot', /--model: expected the folder of the model, got none. Add --model DIR/],
    ['parrot more --model dir', /got a second argument "more"/],
    ['parrot --model dir --device gpu', /--device: expected a device, .* Did you mean cuda\?/],
    ['parrot --model dir --dtype float', /^--dtype: expected float32, .* got "float"\. Did you mean float32\?/],
    ['parrot --model dir --host 0.0.0.0', /--host: expected an API key, .* Set VOXTORCH_API_KEY or --api-key/],
    ['parrot --model dir --port x', /--port: expected an integer/],
    ['parrot --model dir --concurrent 1.5', /--concurrent: expected an integer of at least 1/],
    ['parrot --model dir --max-body -1', /--max-body: expected a number of at least 0/],
    ['parrot --model dir --colour', /serve: expected a known option, got --colour/],
  ])('refuses %s', (line, message) => {
    expect(() => parsed(line)).toThrow(ConfigError)
    expect(() => parsed(line)).toThrow(message)
  })

  it('suggests the command for a language model', () => {
    const text = { text: models.parrot }
    const said = /Did you mean `voxtorch serve text --model smollm2-135m-instruct`\?/
    expect(() => parseServe(['smollm2-135m-instruct'], text, {})).toThrow(said)
    expect(() => parseServe(['--model', 'smollm2'], text, {})).toThrow(said)
    expect(() => parseServe(['text'], text, {})).toThrow(/For example: --model smollm2-135m-instruct/)
  })

  it('says how it is used, and fails with a sentence', () => {
    const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
    const run = (...values: string[]) => spawnSync(process.execPath, [main, ...values], { encoding: 'utf8' })
    const help = run('serve', '--help')
    expect([help.status, help.stderr]).toEqual([0, ''])
    for (const option of [
      '--model <model>',
      '--host',
      '--port',
      '--api-key',
      '--max-body',
      '--concurrent',
      '--queue',
    ]) {
      expect(help.stdout).toContain(option)
    }
    const forText = run('serve', 'text', '--help').stdout
    expect(forText).not.toContain('emoverse:')
    expect(help.stdout).toContain('emoverse:')
    expect(run('--help').stdout).toMatch(/^ {2}serve +Serve a speech, vision or text model/m)
    const unknown = run('serve', 'nothing-known', '--model', 'x')
    expect(unknown.status).toBe(1)
    expect(unknown.stderr).toMatch(/^voxtorch: serve: expected a kind of model: text, .* got "nothing-known"/)
  })

  const script = fileURLToPath(new URL('process.mjs', import.meta.url))
  const start = async (...values: string[]) => {
    const child = spawn(process.execPath, [script, 'cli', ...values], { stdio: ['ignore', 'pipe', 'pipe'] })
    const exit = once(child, 'exit')
    let log = ''
    child.stderr.on('data', (part) => {
      log += part
    })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const { value } = await lines.next()
    return { child, exit, url: /http\S+(?=;)/.exec(String(value))?.[0] ?? '', log: () => log }
  }

  it.each(['SIGINT', 'SIGTERM'] as const)('serves, and on %s finishes what runs and ends well', async (signal) => {
    const { child, exit, url, log } = await start('parrot', '--model', 'some/dir', '--port', '0', '--dtype', 'bfloat16')
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    expect((await call(url, '/')).text).toContain('<title>voxtorch</title>')
    const answer = ask(url, { messages: [user(text('count 20'))] })
    await expect.poll(async () => (await call(url, '/health')).json.running, { interval: 10 }).toBe(1)
    child.kill(signal)
    expect((await answer).json.choices[0].message.content).toMatch(/ 20 $/)
    expect(await exit).toEqual([0, null])
    expect(log()).toContain('loaded some/dir {"dtype":"bfloat16"}')
    expect(log()).toContain('POST /v1/chat/completions 200')
  })

  it('aborts what runs on a second signal', async () => {
    const { child, exit, url, log } = await start('parrot', '--model', 'x', '--port', '0', '--quiet')
    const { first } = begin(url, { messages: [user(text('count 500'))], stream: true, max_tokens: 500 })
    await first
    const started = performance.now()
    child.kill('SIGINT')
    await expect.poll(log, { interval: 10 }).toContain('^C again aborts them')
    child.kill('SIGINT')
    expect(await exit).toEqual([0, null])
    expect(performance.now() - started).toBeLessThan(PATIENCE)
    expect(log()).not.toContain('POST')
  })
})
