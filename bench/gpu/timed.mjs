// How long each part takes, for the phases that time networks.

/**
 * Print the median of five runs after two for warm-up. The run waits for its results itself.
 * @param {typeof import('../../lib/index.js')} vt
 * @param {string} name
 * @param {() => unknown} run in a scope of its own
 */
export async function timed(vt, name, run) {
  const milliseconds = []
  for (let i = 0; i < 7; i++) {
    const began = performance.now()
    await vt.scope(async () => void (await run()))
    milliseconds.push(performance.now() - began)
  }
  const sorted = milliseconds.slice(2).sort((a, b) => a - b)
  console.log(`${name}: ${sorted[2].toFixed(2)} ms`)
}
