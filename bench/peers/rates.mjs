// How fast a big matrix product and a matrix-vector product are in the same run: compare two runs only if these agree.
import { ops, randn } from 'voxtorch'

/** Runs a job n times and frees the tensor that it makes. */
export const repeated = (job) => async (n) => {
  for (let i = 0; i < n; i++) (await job()).dispose()
}

const wide = randn([1024, 1024])
const tall = randn([1024, 1024])
const matrix = randn([4096, 4096])
const vector = randn([4096])

/** Through the queue, where all threads work on them. */
export const rates = {
  gemm: repeated(() => ops.async.matmul(wide, tall)),
  gemv: repeated(() => ops.async.matmul(matrix, vector)),
}
