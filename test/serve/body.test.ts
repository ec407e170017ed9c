import { EventEmitter } from 'node:events'
import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { BodyRoom, readBody } from '../../lib/serve/body.js'

/** A clock that stands still but for `tick`. */
let now = 0
beforeEach(() => {
  now = 0
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout'] })
  vi.spyOn(performance, 'now').mockImplementation(() => now)
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

/** A second of the timers, which the machine took so long for. */
const tick = (milliseconds = 1000) => {
  now += milliseconds
  vi.advanceTimersByTime(1000)
}
const turns = async () => {
  for (let i = 0; i < 4; i++) await setImmediate()
}

function reading() {
  const request = Object.assign(new EventEmitter(), {
    headers: {},
    destroyed: false,
    pause: () => request,
    resume: () => request,
  })
  const limits = { maxBodyBytes: 1e6, bodyTimeout: 1e6, queueTimeout: 1e6 }
  const body = readBody(request as never, {} as never, limits, new BodyRoom(1e6))
  const settled = vi.fn()
  body.then(settled, settled)
  return { request, body, settled }
}

describe('a body that stalls', () => {
  it('is refused after five seconds in which nearly nothing came', async () => {
    const { request, body, settled } = reading()
    request.emit('data', Buffer.from('{"a":'))
    for (let i = 0; i < 4; i++) tick()
    await turns()
    expect(settled).not.toHaveBeenCalled()
    tick()
    await expect(body).rejects.toMatchObject({ status: 408 })
  })

  it('is no slow client’s where the server itself did not come to look', async () => {
    const { request, body, settled } = reading()
    for (let i = 0; i < 20; i++) tick(3000)
    await turns()
    expect(settled).not.toHaveBeenCalled()
    request.emit('data', Buffer.from('{"a": 1}'))
    request.emit('end')
    expect((await body).parse()).toEqual({ a: 1 })
  })

  it('is read first as far as it has come', async () => {
    const { request, body } = reading()
    for (let i = 0; i < 5; i++) tick()
    request.emit('data', Buffer.from(`{"a": "${'x'.repeat(6000)}"`))
    await turns()
    request.emit('data', Buffer.from('}'))
    request.emit('end')
    expect(Object.keys((await body).parse() as object)).toEqual(['a'])
  })

  it('goes on as long as it brings a thousand bytes a second', async () => {
    const { request, body, settled } = reading()
    request.emit('data', Buffer.from('["'))
    for (let i = 0; i < 30; i++) {
      request.emit('data', Buffer.from('x'.repeat(1100)))
      tick()
      await turns()
    }
    expect(settled).not.toHaveBeenCalled()
    request.emit('data', Buffer.from('"]'))
    request.emit('end')
    expect(((await body).parse() as string[])[0]?.length).toBe(33_000)
  })
})
