// @ts-check
// A data set that a DataLoader's worker threads read: sample i is clip i, spoken by npm's espeak-ng (WebAssembly).
// Plain JavaScript, because worker threads load it as it is.
// @ts-expect-error: the package has no types
import ESpeakNg from 'espeak-ng'

/** @param {unknown} clips what `planClips` made */
export const dataset = (clips) => {
  const list = /** @type {import('./clips.js').Clip[]} */ (clips)
  return { length: list.length, get: (/** @type {number} */ i) => speak(/** @type {*} */ (list[i])) }
}

/** @param {import('./clips.js').Clip} clip */
async function speak({ file, text, voice, pitch, speed, range }) {
  const numbers = ['-p', `${pitch}`, '-s', `${speed}`, '-P', `${range}`]
  const silent = { print() {}, printErr() {} }
  // The program runs once and ends, so each clip has an instance of its own.
  const espeak = await ESpeakNg({ arguments: ['-w', 'clip.wav', '-v', voice, ...numbers, text], ...silent })
  return { file, wav: espeak.FS.readFile('clip.wav') }
}
