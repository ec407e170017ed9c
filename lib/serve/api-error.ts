import { defined } from '../base/check.js'
import { ConfigError, DataError, DTypeError, OutOfMemoryError, ShapeError } from '../base/errors.js'

/** An HTTP error response in the format of OpenAI's API. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly facts: { code?: string; param?: string; retryAfter?: number; headers?: Record<string, string> } = {},
  ) {
    super(message)
  }

  get body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { param = null, code = null } = this.facts
    return { error: { message: this.message, type: typeOf(this.status), param, code } }
  }
}

function typeOf(status: number): string {
  if (status === 401) return 'authentication_error'
  if (status === 403) return 'permission_error'
  if (status === 429) return 'rate_limit_error'
  return status >= 500 ? 'server_error' : 'invalid_request_error'
}

/** Return the error of an invalid request. The message starts with `param`, the path of the wrong field. */
export const badRequest = (message: string, param?: string, code = 'invalid_value'): ApiError =>
  new ApiError(400, param === undefined ? message : `${param}: ${message}`, defined({ code, param }))

/** Return the error that a client sees. A model's typed errors describe the request; details of others stay in the log. */
export function apiErrorOf(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  if ([ConfigError, DataError, ShapeError, DTypeError].some((kind) => error instanceof kind)) {
    return badRequest((error as Error).message, undefined, 'invalid_request')
  }
  if (error instanceof OutOfMemoryError) {
    return new ApiError(503, 'The server has too little memory for this request. Try again later, or send less.', {
      code: 'out_of_memory',
      retryAfter: 5,
    })
  }
  return new ApiError(500, "Internal error. The server's log has the details.", { code: 'internal_error' })
}
