// @ts-check
// A data set that a DataLoader's worker threads read: sample i is clip i, spoken by npm's espeak-ng (WebAssembly).
// Plain JavaScript, because worker threads load it as it is.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
// @ts-expect-error: the package has no types
import ESpeakNg from 'espeak-ng'

/** @param {unknown} clips what `spoken` made */
export const dataset = (clips) => {
  const list = /** @type {import('./speech.js').Spoken[]} */ (clips)
  return { length: list.length, get: (/** @type {number} */ i) => speak(/** @type {*} */ (list[i])) }
}

/** @param {import('./speech.js').Spoken} clip */
async function speak({ file, text, voice, pitch, speed, range }) {
  const numbers = ['-p', `${pitch}`, '-s', `${speed}`, '-P', `${range}`]
  const { run, files } = await program()
  const status = run(['-w', 'clip.wav', '-v', voice, ...numbers, text])
  if (status !== 0) throw new Error(`espeak-ng ended with ${status} at ${JSON.stringify(text)} (voice ${voice})`)
  return { file, wav: files.readFile('clip.wav') }
}

/** @type {Promise<{ run: (values: string[]) => number, files: { readFile: (path: string) => Uint8Array } }> | undefined} */
let started

/**
 * The command-line program, started once for all clips of a thread: to load its 18 MB of voices takes ten times as long as to speak
 * a sentence. Its memory is put back before each run, so a clip's samples depend on nothing that was spoken before it.
 */
function program() {
  started ??= (async () => {
    const path = createRequire(import.meta.url)
      .resolve('espeak-ng')
      .replace(/\.js$/, '.wasm')
    const { WebAssembly } = /** @type {*} */ (globalThis) // Node's types have none
    const module = await WebAssembly.compile(readFileSync(path))
    /** @type {*} exports of the WebAssembly module: the JavaScript object lacks those that allocate arguments */
    let native
    const espeak = await ESpeakNg({
      noInitialRun: true,
      noExitRuntime: true,
      print() {},
      printErr() {},
      instantiateWasm(/** @type {*} */ imports, /** @type {(instance: unknown) => void} */ done) {
        WebAssembly.instantiate(module, imports).then((/** @type {*} */ instance) => {
          native = instance.exports
          done(instance)
        })
        return {}
      },
    })
    const fresh = espeak.HEAPU8.slice()
    /** @param {string[]} values */
    const run = (values) => {
      espeak.HEAPU8.set(fresh)
      espeak.HEAPU8.fill(0, fresh.length) // where the memory has grown
      const stack = native.stackSave()
      try {
        const places = ['espeak-ng', ...values].map((value) => {
          const bytes = Buffer.from(`${value}\0`)
          const place = native.stackAlloc(bytes.length)
          espeak.HEAPU8.set(bytes, place)
          return place
        })
        const list = native.stackAlloc(4 * (places.length + 1)) // an array of C strings, ended by null
        espeak.HEAPU32.set([...places, 0], list / 4)
        return espeak._main(places.length, list)
      } finally {
        native.stackRestore(stack)
      }
    }
    return { run, files: espeak.FS }
  })()
  return started
}
