/** Rejects as soon as the signal says so; what runs meanwhile is nobody's business any more. */
export function abortable<T>(signal: AbortSignal | undefined, job: Promise<T>): Promise<T> {
  if (!signal) return job
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason)
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
    job.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop))
  })
}
