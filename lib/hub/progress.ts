import { argumentError } from '../base/check.js'
import { ProgressBar, type ProgressStream } from '../data/progress.js'

const MB = 1e6

let defaultProgress: boolean | ProgressStream = false

/**
 * Set the default of the `progress` option of model downloads: false (initially) shows nothing, true shows a line and a progress
 * bar on stderr, a stream shows them there. The `voxtorch` command sets it to true.
 *
 * @throws ConfigError for other values
 */
export function setDownloadProgress(progress: boolean | ProgressStream): void {
  progressStream('setDownloadProgress', progress)
  defaultProgress = progress
}

/** Return the stream of a `progress` option. @throws ConfigError for values other than a boolean or a stream */
export function progressStream(
  where: string,
  progress: boolean | ProgressStream | undefined = defaultProgress,
): ProgressStream | undefined {
  if (typeof progress !== 'boolean' && typeof progress?.write !== 'function') {
    throw argumentError(where, 'progress', 'a boolean or a stream', progress)
  }
  return progress === true ? process.stderr : progress || undefined
}

/** Create a progress bar of the total bytes of several files. */
export function progressBar(label: string, files: readonly { size: number }[], stream: ProgressStream | undefined) {
  const bytes = files.reduce((sum, { size }) => sum + size, 0)
  const bar =
    stream === undefined || files.length === 0
      ? undefined
      : new ProgressBar({ total: Math.ceil(bytes / MB), label, unit: 'MB', stream })
  let total = 0
  return {
    /** Return the counter of one file. A restarted download counts from its previous maximum. */
    counter() {
      let most = 0
      return (size: number): void => {
        if (bar === undefined || size <= most) return
        const before = total
        total += size - most
        most = size
        bar.tick((total === bytes ? Math.ceil(total / MB) : Math.floor(total / MB)) - Math.floor(before / MB))
      }
    },
    close: (): void => bar?.close(),
  }
}
