/** Right calls of operators for which chance finds none, by name without `aten::`. */
import type { Call } from './operators.js'
import { dense, list, type Spec, type TensorSpec, value } from './values.js'

const call = (...args: Spec[]): Partial<Call> => ({ args })
const f = dense
const tensors = (...items: Spec[]): Spec => ({ is: 'list', items })
const csr: TensorSpec = { ...f([4, 4]), kind: 'csr' }
const csc: TensorSpec = { ...f([4, 4]), kind: 'csc' }
const sparse: TensorSpec = { ...f([4, 4]), kind: 'sparse' }
const yes = value(true)
const no = value(false)
const n = value

// Of one layer, input size 3 and hidden size 4: weights and biases with `gates` times four rows.
const recurrent = (gates: number): Spec[] => [f([gates * 4, 3]), f([gates * 4, 4]), f([gates * 4]), f([gates * 4])]
const layer = (gates: number, ...states: Spec[]): Partial<Call>[] => [
  // input [time, batch, size], hidden, weights, has biases, layers, dropout, training, bidirectional, batch first
  call(f([5, 2, 3]), ...states, tensors(...recurrent(gates)), yes, n(1), n(0), no, no, no),
  call(f([2, 5, 3]), ...states, tensors(...recurrent(gates)), yes, n(1), n(0), yes, no, yes),
  // Packed: rows of two sequences of 3 and 2 steps.
  call(f([5, 3]), { ...f([3], 'ones', 'int64') }, ...states, tensors(...recurrent(gates)), yes, n(1), n(0), no, no),
]

export const samples: Record<string, Partial<Call>[]> = {
  addbmm: [call(f([3, 5]), f([2, 3, 4]), f([2, 4, 5]))],
  addbmm_: [call(f([3, 5]), f([2, 3, 4]), f([2, 4, 5]))],
  addmv: [call(f([3]), f([3, 4]), f([4]))],
  addmv_: [call(f([3]), f([3, 4]), f([4]))],
  addmm: [call(f([3, 5]), f([3, 4]), f([4, 5])), call(f([4, 4]), csr, f([4, 4]))],
  baddbmm: [call(f([2, 3, 5]), f([2, 3, 4]), f([2, 4, 5]))],
  affine_grid_generator: [call(f([2, 2, 3]), list([2, 1, 4, 4]), no), call(f([1, 3, 4]), list([1, 2, 2, 3, 3]), yes)],
  batch_norm: [call(f([2, 3, 4]), f([3]), f([3]), f([3], 'unit'), f([3], 'unit'), yes, n(0.1), n(1e-5), no)],
  bilinear: [call(f([2, 3]), f([2, 4]), f([5, 3, 4]), f([5]))],
  binary_cross_entropy: [
    call(f([4], 'unit'), f([4], 'unit')),
    call(f([2, 3], 'unit'), f([2, 3], 'indices'), f([2, 3], 'unit'), n(2)),
  ],
  binary_cross_entropy_with_logits: [call(f([4]), f([4], 'unit'))],
  conv_transpose2d: [call(f([1, 2, 3, 3]), f([2, 4, 2, 2]), f([4]))],
  conv_transpose3d: [call(f([1, 2, 3, 3, 3]), f([2, 4, 2, 2, 2]), f([4]))],
  convolution: [
    call(f([1, 2, 8]), f([4, 2, 3]), f([4]), list([1]), list([1]), list([1]), no, list([0]), n(1)),
    call(f([1, 2, 8, 8]), f([2, 3, 3, 3]), n(null), list([2, 2]), list([1, 1]), list([1, 1]), yes, list([1, 1]), n(1)),
    call(f([1, 2, 8]), f([4, 1, 3]), f([4]), list([1]), list([2]), list([2]), no, list([0]), n(2)),
  ],
  cosine_embedding_loss: [call(f([2, 3]), f([2, 3]), f([2], 'ones'))],
  ctc_loss: [
    call(f([6, 2, 4]), f([2, 3], 'ones', 'int64'), list([6, 5]), list([3, 2])),
    call(f([6, 2, 4]), f([2, 3], 'ones', 'int64'), f([2], 'ones', 'int64'), f([2], 'ones', 'int64')),
    call({ ...f([6, 2, 4]), grad: true }, f([5], 'ones', 'int64'), list([6, 6]), list([3, 2]), n(0), n(2), yes),
  ],
  embedding_bag: [
    call(f([4, 3]), f([5], 'indices', 'int64'), f([2], 'zeros', 'int64')),
    call(f([4, 3]), f([2, 5], 'indices', 'int64'), f([2], 'zeros', 'int64'), no, n(2)),
    call(f([4, 3]), f([5], 'indices', 'int64'), f([2], 'zeros', 'int64'), no, n(0), no, f([5]), yes),
  ],
  fractional_max_pool2d: [call(f([1, 2, 6, 6]), list([2, 2]), list([3, 3]), f([1, 2, 2], 'unit'))],
  fractional_max_pool3d: [call(f([1, 2, 6, 6, 6]), list([2, 2, 2]), list([3, 3, 3]), f([1, 2, 3], 'unit'))],
  grid_sampler: [
    call(f([1, 2, 4, 4]), f([1, 3, 3, 2]), n(0), n(0), no),
    call(f([1, 2, 4, 4]), f([1, 3, 3, 2]), n(2), n(2), yes),
  ],
  grid_sampler_2d: [call(f([1, 2, 4, 4]), f([1, 3, 3, 2]), n(0), n(1), no)],
  grid_sampler_3d: [call(f([1, 2, 4, 4, 4]), f([1, 2, 3, 3, 3]), n(0), n(1), no)],
  gru: layer(3, f([1, 2, 4])),
  gru_cell: [call(f([2, 3]), f([2, 4]), ...recurrent(3))],
  hspmm: [call(sparse, f([4, 3]))],
  linalg_ldl_solve: [call(f([3, 3], 'ones'), f([3], 'ones', 'int32'), f([3, 2]))],
  linalg_lu_solve: [call(f([4, 4], 'ones'), f([4], 'ones', 'int32'), f([4, 2]))],
  linear: [call(f([2, 3]), f([4, 3]), f([4]))],
  lstm: layer(4, tensors(f([1, 2, 4]), f([1, 2, 4]))),
  lstm_cell: [call(f([2, 3]), tensors(f([2, 4]), f([2, 4])), ...recurrent(4))],
  lu_solve: [call(f([4, 2]), f([4, 4], 'ones'), f([4], 'ones', 'int32'))],
  max_unpool2d: [call(f([1, 2, 2, 2]), f([1, 2, 2, 2], 'indices', 'int64'), list([4, 4]))],
  max_unpool3d: [
    call(f([1, 2, 2, 2, 2]), f([1, 2, 2, 2, 2], 'indices', 'int64'), list([4, 4, 4]), list([2, 2, 2]), list([0, 0, 0])),
  ],
  nll_loss2d: [
    call(f([2, 3, 4, 4]), f([2, 4, 4], 'indices', 'int64')),
    call(f([2, 3, 4, 4]), f([2, 4, 4], 'indices', 'int64'), f([3], 'unit'), n(0)),
  ],
  rnn_relu: layer(1, f([1, 2, 4])),
  rnn_tanh: layer(1, f([1, 2, 4])),
  rnn_relu_cell: [call(f([2, 3]), f([2, 4]), ...recurrent(1))],
  rnn_tanh_cell: [call(f([2, 3]), f([2, 4]), ...recurrent(1))],
  ccol_indices: [call(csc)],
  col2im: [call(f([1, 4, 9]), list([4, 4]), list([2, 2]), list([1, 1]), list([0, 0]), list([1, 1]))],
  col_indices: [call(csr)],
  crow_indices: [call(csr)],
  row_indices: [call(csc)],
  smm: [call(sparse, f([4, 3]))],
  sparse_csr_tensor: [call(f([3], 'zeros', 'int64'), f([0], 'zeros', 'int64'), f([0]), list([2, 2]))],
  sparse_sampled_addmm: [call(csr, f([4, 3]), f([3, 4]))],
  sspaddmm: [call(sparse, sparse, f([4, 4]))],
  view_as_complex: [call(f([3, 2])), call(f([2], 'normal', 'float64'))],
}
