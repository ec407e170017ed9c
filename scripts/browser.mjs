// Headless Chromium over its debugging pipe, for the checks of reports. Its path in CHROMIUM, or on the PATH.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

/**
 * Opens a page, gives what `look` returns there to `compare`, and fails where the page reports errors or loads anything
 * that is not its own.
 * @template T
 * @param {string} file
 * @param {() => unknown} look runs in the page
 * @param {(seen: any) => T} compare
 * @param {string} [screenshot] where to put a picture of the page
 * @returns {Promise<T>}
 */
export async function checkPage(file, look, compare, screenshot) {
  const profile = mkdtempSync(join(tmpdir(), 'voxtorch-chromium-'))
  const browser = openBrowser(profile)
  try {
    const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true })
    const page = (/** @type {string} */ method, params = {}) => browser.send(method, params, sessionId)
    await page('Network.enable')
    await page('Runtime.enable')
    await page('Page.enable')
    await page('Emulation.setDeviceMetricsOverride', { width: 1000, height: 900, deviceScaleFactor: 1, mobile: false })
    const loaded = browser.event('Page.loadEventFired')
    await page('Page.navigate', { url: pathToFileURL(resolve(file)).href })
    await loaded
    const { result, exceptionDetails } = await page('Runtime.evaluate', {
      expression: `(${look})()`,
      awaitPromise: true,
      returnByValue: true,
    })
    assert.equal(exceptionDetails, undefined, JSON.stringify(exceptionDetails))
    const checked = compare(result.value)
    const foreign = browser.requests.filter((url) => !/^(file|data|about):/.test(url))
    assert.deepEqual(foreign, [], 'the report loads things from elsewhere')
    assert.deepEqual(browser.problems, [], 'the page reports errors')
    if (screenshot) {
      const { data } = await page('Page.captureScreenshot', { captureBeyondViewport: true })
      writeFileSync(screenshot, Buffer.from(data, 'base64'))
    }
    return checked
  } finally {
    await browser.close()
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** @param {string} profile a folder for the browser's own files */
function openBrowser(profile) {
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
  const found = process.env.CHROMIUM ?? names.find((name) => works(name))
  if (!found) throw new Error('there is no Chromium: install it, or give its path in CHROMIUM')
  const flags = [
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--remote-debugging-pipe',
    `--user-data-dir=${profile}`,
  ]
  // No name resolves, so what the report would load from a network shows as an error.
  const child = spawn(found, [...flags, '--host-resolver-rules=MAP * ~NOTFOUND', '--no-first-run', '--mute-audio'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
  })
  const [to, from] = [/** @type {any} */ (child.stdio[3]), /** @type {any} */ (child.stdio[4])]
  /** @type {Map<number | string, (message: any) => void>} */
  const waiting = new Map()
  /** @type {string[]} */
  const requests = []
  /** @type {string[]} */
  const problems = []
  let rest = ''
  let last = 0
  from.setEncoding('utf8').on('data', (/** @type {string} */ chunk) => {
    const messages = (rest + chunk).split('\0')
    rest = /** @type {string} */ (messages.pop())
    for (const message of messages.map((json) => JSON.parse(json))) {
      waiting.get(message.id ?? message.method)?.(message)
      if (message.method === 'Network.requestWillBeSent') requests.push(message.params.request.url.slice(0, 200))
      if (message.method === 'Runtime.exceptionThrown') problems.push(message.params.exceptionDetails.text)
    }
  })
  return {
    requests,
    problems,
    /** @param {string} method @param {object} [params] @param {string} [sessionId] @returns {Promise<any>} */
    send(method, params = {}, sessionId = undefined) {
      const id = ++last
      to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
      return new Promise((done, fail) => {
        waiting.set(id, (message) =>
          message.error ? fail(new Error(`${method}: ${message.error.message}`)) : done(message.result),
        )
      })
    },
    /** @param {string} method */
    event: (method) => new Promise((done) => waiting.set(method, done)),
    async close() {
      const gone = new Promise((done) => child.once('exit', done))
      // A browser that is killed leaves children that still write into its profile.
      const late = setTimeout(() => child.kill(), 5000)
      to.write(`${JSON.stringify({ id: ++last, method: 'Browser.close' })}\0`)
      await gone
      clearTimeout(late)
    },
  }
}

/** @param {string} name */
function works(name) {
  try {
    execFileSync(name, ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
