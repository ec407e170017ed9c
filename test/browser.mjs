// Headless Chromium over its debugging pipe, for the checks of reports and pages. Its path in CHROMIUM, or on the PATH.
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
 * @param {string} [screenshot] path for a screenshot
 * @returns {Promise<T>}
 */
export async function checkPage(file, look, compare, screenshot) {
  return withPage(pathToFileURL(resolve(file)).href, async (page) => {
    const checked = compare(await page.evaluate(look))
    const foreign = page.requests.filter((url) => !/^(file|data|about):/.test(url))
    assert.deepEqual(foreign, [], 'the report loads things from elsewhere')
    assert.deepEqual(page.problems, [], 'the page reports errors')
    if (screenshot) await page.screenshot(screenshot)
    return checked
  })
}

/** @typedef {Awaited<ReturnType<typeof pageOf>>} Page */

/**
 * Opens a page and gives it to `use`, with a person's hands: mouse, keyboard and files from the disk.
 * @template T
 * @param {string} url
 * @param {(page: Page) => Promise<T>} use
 * @param {string} [microphone] a WAV file that the microphone hears, over and over. Default: beeps
 * @returns {Promise<T>}
 */
export async function withPage(url, use, microphone) {
  const profile = mkdtempSync(join(tmpdir(), 'voxtorch-chromium-'))
  const browser = openBrowser(profile, microphone)
  try {
    return await use(await pageOf(browser, url))
  } finally {
    await browser.close()
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** @param {ReturnType<typeof openBrowser>} browser @param {string} url */
async function pageOf(browser, url) {
  const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' })
  const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true })
  const send = (/** @type {string} */ method, params = {}) => browser.send(method, params, sessionId)
  for (const domain of ['Network', 'Runtime', 'Page', 'Log']) await send(`${domain}.enable`)
  const size = (width = 1000, height = 900, mobile = false) =>
    send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile })
  await size()
  const loaded = browser.event('Page.loadEventFired')
  await send('Page.navigate', { url })
  await loaded

  /**
   * Calls a function in the page, which knows nothing of what is outside of it.
   * @template {any[]} A
   * @template R
   * @param {(...values: A) => R} fn
   * @param {A} values
   * @returns {Promise<Awaited<R>>}
   */
  const evaluate = async (fn, ...values) => {
    const expression = `(${fn})(...${JSON.stringify(values)})`
    const evaluated = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })
    assert.equal(evaluated.exceptionDetails, undefined, JSON.stringify(evaluated.exceptionDetails))
    return evaluated.result.value
  }
  /** The middle of an element, which must be seen. */
  const middle = async (/** @type {string} */ selector) => {
    const place = await evaluate((query) => {
      const element = globalThis.document.querySelector(query)
      const { top = 0, bottom = 0 } = element?.getBoundingClientRect() ?? {}
      if (top < 0 || bottom > globalThis.innerHeight) element?.scrollIntoView({ block: 'center', behavior: 'instant' })
      const box = element?.getBoundingClientRect()
      return box && box.width > 0 ? { x: box.x + box.width / 2, y: box.y + box.height / 2 } : null
    }, selector)
    assert.ok(place, `${selector} is not to be seen`)
    return place
  }
  return {
    send,
    size,
    evaluate,
    requests: browser.requests,
    problems: browser.problems,
    /** @param {string} selector */
    async click(selector) {
      const place = { ...(await middle(selector)), button: 'left', clickCount: 1 }
      await send('Input.dispatchMouseEvent', { type: 'mousePressed', ...place })
      await send('Input.dispatchMouseEvent', { type: 'mouseReleased', ...place })
    },
    /** Presses the mouse on an element and holds it. @param {string} selector @param {number} milliseconds */
    async hold(selector, milliseconds) {
      const place = { ...(await middle(selector)), button: 'left', clickCount: 1 }
      await send('Input.dispatchMouseEvent', { type: 'mousePressed', ...place })
      await new Promise((next) => setTimeout(next, milliseconds))
      await send('Input.dispatchMouseEvent', { type: 'mouseReleased', ...place })
    },
    /** Set the files of an input, as a user's choice. @param {string} selector @param {string[]} files */
    async choose(selector, files) {
      const { root } = await send('DOM.getDocument')
      const { nodeId } = await send('DOM.querySelector', { nodeId: root.nodeId, selector })
      await send('DOM.setFileInputFiles', { nodeId, files })
    },
    /** Into whatever has the focus. @param {string} text */
    type: (text) => send('Input.insertText', { text }),
    /** @param {'Enter' | 'Tab' | 'Escape' | 'ArrowRight'} key @param {{ shift?: boolean }} [how] */
    async press(key, { shift = false } = {}) {
      const windowsVirtualKeyCode = { Enter: 13, Tab: 9, Escape: 27, ArrowRight: 39 }[key]
      const text = key === 'Enter' ? { text: '\r' } : {}
      const event = { key, code: key, windowsVirtualKeyCode, modifiers: shift ? 8 : 0 }
      await send('Input.dispatchKeyEvent', { type: 'keyDown', ...event, ...text })
      await send('Input.dispatchKeyEvent', { type: 'keyUp', ...event })
    },
    /** Drags files over an element and drops them there. @param {string} selector @param {string[]} files */
    async drop(selector, files) {
      const place = await middle(selector)
      const data = { items: [], files, dragOperationsMask: 1 }
      for (const type of ['dragEnter', 'dragOver', 'drop']) {
        await send('Input.dispatchDragEvent', { type, ...place, data })
      }
    },
    /** Waits until a function of the page gives something true. @param {() => unknown} what */
    async until(what, seconds = PATIENCE / 1000) {
      const end = performance.now() + seconds * 1000
      while (!(await evaluate(what))) {
        assert.ok(performance.now() < end, `not within ${seconds} s: ${what}`)
        await new Promise((next) => setTimeout(next, 30))
      }
    },
    /** @param {string} path */
    async screenshot(path, whole = true) {
      const { data } = await send('Page.captureScreenshot', { captureBeyondViewport: whole })
      writeFileSync(path, Buffer.from(data, 'base64'))
    },
  }
}

/** For what hangs, in milliseconds: a machine that does other work besides may take a minute for a second's. */
const PATIENCE = 120_000

/** @param {string} profile a folder for the browser's own files @param {string} [microphone] */
function openBrowser(profile, microphone) {
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
  // Names do not resolve, so what a page would load from a network shows as an error. The microphone is a beeping one.
  const isolation = ['--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1', '--no-first-run', '--mute-audio']
  const hears = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']
  if (microphone) hears.push(`--use-file-for-fake-audio-capture=${microphone}`)
  const child = spawn(found, [...flags, ...isolation, ...hears], {
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
      if (message.method === 'Log.entryAdded' && message.params.entry.level === 'error') {
        problems.push(message.params.entry.text)
      }
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
        const late = setTimeout(() => fail(new Error(`${method}: no answer within ${PATIENCE / 1000} s`)), PATIENCE)
        waiting.set(id, (message) => {
          clearTimeout(late)
          if (message.error) fail(new Error(`${method}: ${message.error.message}`))
          else done(message.result)
        })
      })
    },
    /** @param {string} method */
    event: (method) => new Promise((done) => waiting.set(method, done)),
    async close() {
      const gone = new Promise((done) => child.once('exit', done))
      // A browser that is killed leaves children that still write into its profile.
      const late = setTimeout(() => child.kill(), 20_000)
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
