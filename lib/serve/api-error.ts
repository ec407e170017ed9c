import { defined } from '../base/check.js'
import { ConfigError, DataError, DTypeError, OutOfMemoryError, ShapeError } from '../base/errors.js'

/** An answer other than success, in the shape of OpenAI's errors. */
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

/** A request that cannot be understood. */
export const badRequest = (message: string, param?: string, code = 'invalid_value'): ApiError =>
  new ApiError(400, message, defined({ code, param }))

/** What a client may know of an error: a model's typed errors speak of the request, others of the server's inside. */
export function apiErrorOf(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  if ([ConfigError, DataError, ShapeError, DTypeError].some((kind) => error instanceof kind)) {
    return badRequest((error as Error).message, undefined, 'invalid_request')
  }
  if (error instanceof OutOfMemoryError) {
    return new ApiError(503, 'The server has no memory left for this request.', {
      code: 'out_of_memory',
      retryAfter: 5,
    })
  }
  return new ApiError(500, 'The server failed; its log says why.', { code: 'internal_error' })
}
