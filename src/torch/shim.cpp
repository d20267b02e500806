// What libtorch has and tch hides, as plain C functions over at::Tensor pointers.
//
// Every function returns nullptr, or a message that the caller frees with free(). No C++ exception leaves this file
// towards Rust, and a Rust callback reports failure by returning such a message, which goes on as c10::Error.

#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <atomic>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/script.h>
#include <vector>

namespace {

using torch::autograd::Variable;
using torch::autograd::variable_list;

template <typename Body> char *guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

void raise_if(char *message) {
  if (message == nullptr) return;
  std::string text(message);
  free(message);
  TORCH_CHECK(false, text);
}

// A boxed Rust closure: `call` may run it, `drop` frees it. `call` takes `count` gradients it owns afterwards and
// leaves as many new ones in `results` as the node has inputs.
struct Closure {
  void *context;
  char *(*call)(void *context, at::Tensor *gradient, at::Tensor **results, size_t count);
  void (*drop)(void *context);

  void release() {
    if (context != nullptr) drop(context);
    context = nullptr;
  }
};

struct GradientHook : torch::autograd::PostAccumulateGradHook {
  Closure closure;
  explicit GradientHook(Closure closure) : closure(closure) {}
  ~GradientHook() override { closure.release(); }
  void operator()(const Variable &variable) override {
    auto *gradient = new at::Tensor(std::move(variable.mutable_grad()));
    variable.mutable_grad().reset();
    raise_if(closure.call(closure.context, gradient, nullptr, 0));
  }
};

struct ClosureNode : torch::autograd::Node {
  Closure closure;
  explicit ClosureNode(Closure closure) : closure(closure) {}
  ~ClosureNode() override { closure.release(); }
  void release_variables() override { closure.release(); }
  std::string name() const override { return "SegdistBackward"; }

  variable_list apply(variable_list &&gradients) override {
    TORCH_CHECK(closure.context != nullptr, "backward runs a second time through a graph already freed");
    at::Tensor gradient = gradients[0].defined() ? std::move(gradients[0]) : input_metadata(0).zeros_like();
    std::vector<at::Tensor *> results(num_outputs(), nullptr);
    raise_if(closure.call(closure.context, new at::Tensor(std::move(gradient)), results.data(), results.size()));
    variable_list owned;
    for (at::Tensor *result : results) {
      owned.emplace_back(result == nullptr ? at::Tensor() : std::move(*result));
      delete result;
    }
    return owned;
  }
};

std::vector<at::Tensor> list(at::Tensor **tensors, size_t count) {
  std::vector<at::Tensor> result;
  for (size_t i = 0; i < count; ++i) result.push_back(*tensors[i]);
  return result;
}

// CUDA's half of libtorch registers itself here when it is loaded; until then this throws.
c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(at::kCUDA); }

c10::Device gpu(int index) { return c10::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index)); }

c10::Stream stream_of(int index, int64_t id) { return c10::Stream(c10::Stream::UNSAFE, gpu(index), id); }

// Counts the bytes of tensors that the thread makes on the CPU.
struct Meter : c10::MemoryReportingInfoBase {
  std::atomic<int64_t> alive{0}, peak{0};
  void reportMemoryUsage(void *, int64_t bytes, size_t, size_t, c10::Device) override {
    int64_t now = alive += bytes, most = peak;
    while (now > most && !peak.compare_exchange_weak(most, now)) {
    }
  }
  bool memoryProfilingEnabled() const override { return true; }
};

struct Metering {
  std::shared_ptr<Meter> meter = std::make_shared<Meter>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, meter};
};

} // namespace

// What a fused update divides gradients by, so that they are multiplied by `scale` without a pass of their own.
static std::optional<at::Tensor> divisor(double scale, const at::Tensor &like) {
  if (scale == 1.0) return std::nullopt;
  return at::full({}, 1.0 / scale, like.options().dtype(at::kFloat));
}

extern "C" {

char *segdist_on_gradient(at::Tensor *parameter, Closure closure) {
  auto hook = std::make_unique<GradientHook>(closure);
  return guarded([&] { torch::autograd::impl::set_post_acc_grad_hooks(*parameter, std::move(hook)); });
}

char *segdist_clear_hook(at::Tensor *parameter) {
  return guarded([&] { torch::autograd::impl::set_post_acc_grad_hooks(*parameter, nullptr); });
}

char *segdist_attach_backward(at::Tensor *output, at::Tensor **inputs, size_t count, Closure closure) {
  std::shared_ptr<ClosureNode> node(new ClosureNode(closure), torch::autograd::deleteNode);
  return guarded([&] {
    auto from = list(inputs, count);
    if (!torch::autograd::compute_requires_grad(from)) return;
    node->set_next_edges(torch::autograd::collect_next_edges(from));
    torch::autograd::set_history(*output, node);
  });
}

char *segdist_backward(at::Tensor **outputs, at::Tensor **gradients, size_t count) {
  return guarded([&] {
    if (count > 0) torch::autograd::backward(list(outputs, count), list(gradients, count));
  });
}

char *segdist_sgd(at::Tensor **parameters, at::Tensor **gradients, at::Tensor **momenta, size_t count, double lr,
                  double momentum, double decay, double grad_scale) {
  return guarded([&] {
    if (count == 0) return;
    at::_fused_sgd_(list(parameters, count), list(gradients, count), list(momenta, count), decay, momentum, lr,
                    /*dampening=*/0.0, /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/false,
                    divisor(grad_scale, **gradients));
  });
}

char *segdist_adamw(at::Tensor **parameters, at::Tensor **gradients, at::Tensor **means, at::Tensor **squares,
                    size_t count, double step, double lr, double beta1, double beta2, double eps, double decay,
                    double grad_scale) {
  return guarded([&] {
    if (count == 0) return;
    auto moved = list(parameters, count);
    std::vector<at::Tensor> steps;
    for (const auto &parameter : moved)
      steps.push_back(at::full({}, step, parameter.options().dtype(at::kFloat)));
    at::_fused_adamw_(moved, list(gradients, count), list(means, count), list(squares, count), {}, steps, lr, beta1,
                      beta2, decay, eps, /*amsgrad=*/false, /*maximize=*/false, divisor(grad_scale, **gradients));
  });
}

// Σ dy and Σ dy·(x − mean)·invstd per channel, one pass over both: evaluation-mode batch norm's parameter gradients.
char *segdist_batch_norm_sums(at::Tensor *gradient, at::Tensor *input, at::Tensor *weight, at::Tensor *mean,
                              at::Tensor *variance, double eps, at::Tensor **sum_dy, at::Tensor **sum_dy_xhat) {
  return guarded([&] {
    auto [dx, dw, db] = at::native_batch_norm_backward(*gradient, *input, *weight, *mean, *variance, {}, {},
                                                       /*train=*/false, eps, {false, true, true});
    *sum_dy_xhat = new at::Tensor(dw);
    *sum_dy = new at::Tensor(db);
  });
}

// Turns autocast to `kind` (c10::ScalarType) on for `cuda` or the CPU; leave with segdist_autocast_exit.
char *segdist_autocast_enter(int cuda, int kind) {
  return guarded([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(kind));
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

char *segdist_autocast_exit(int cuda) {
  return guarded([&] {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(cuda ? at::kCUDA : at::kCPU, false);
  });
}

// A copy in pinned memory. tch's own call names a device, which libtorch warns of every time.
char *segdist_pinned(at::Tensor *values, at::Tensor **copy) {
  return guarded([&] { *copy = new at::Tensor(values->pin_memory()); });
}

// This thread's calls of CUDA are about GPU `index` from now on.
char *segdist_device_enter(int index) {
  return guarded([&] { cuda().setDevice(gpu(index)); });
}

// A stream of GPU `index` out of libtorch's pool, which owns it: its number there, and its cudaStream_t.
char *segdist_stream_new(int index, int64_t *id, void **handle) {
  return guarded([&] {
    cuda().setDevice(gpu(index));
    auto stream = cuda().getStreamFromGlobalPool(gpu(index));
    *id = stream.id();
    *handle = cuda().getStreamNativeHandle(stream);
  });
}

// The stream that this thread's work on GPU `index` goes to: its number, and its cudaStream_t.
char *segdist_stream_current(int index, int64_t *id, void **handle) {
  return guarded([&] {
    cuda().setDevice(gpu(index));
    auto stream = cuda().getStream(gpu(index));
    *id = stream.id();
    *handle = cuda().getStreamNativeHandle(stream);
  });
}

// From now on this thread's work on the GPU goes to this stream.
char *segdist_stream_enter(int index, int64_t id) {
  return guarded([&] {
    cuda().setDevice(gpu(index));
    cuda().exchangeStream(stream_of(index, id));
  });
}

// A mark behind what this thread has handed over to GPU `index` so far; free with segdist_event_free.
char *segdist_event_record(int index, c10::Event **event) {
  return guarded([&] {
    // Recording goes by way of the thread's own device and back, which starts it where it is another one.
    cuda().setDevice(gpu(index));
    auto made = std::make_unique<c10::Event>(at::kCUDA);
    made->record(cuda().getStream(gpu(index)));
    *event = made.release();
  });
}

// What is handed over to the stream later begins when the mark is reached.
char *segdist_event_hold(const c10::Event *event, int index, int64_t id) {
  return guarded([&] {
    cuda().setDevice(gpu(index));
    event->block(stream_of(index, id));
  });
}

char *segdist_event_reached(const c10::Event *event, int *reached) {
  return guarded([&] {
    cuda().setDevice(event->device());
    *reached = event->query();
  });
}

void segdist_event_free(c10::Event *event) { delete event; }

char *segdist_peak_device_bytes(int index, int64_t *bytes) {
  return guarded([&] {
    auto stats = at::getDeviceAllocator(at::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    *bytes = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  });
}

char *segdist_meter_enter(Metering **metering) {
  return guarded([&] { *metering = new Metering(); });
}

char *segdist_meter_exit(Metering *metering, int64_t *peak) {
  return guarded([&] {
    std::unique_ptr<Metering> ending(metering);
    *peak = ending->meter->peak;
  });
}

char *segdist_enclose_script(const char *path, const char *source, const char *const *names, at::Tensor **tensors,
                             size_t count) {
  return guarded([&] {
    torch::jit::Module outer("__torch__.Segmentation");
    outer.register_module("network", torch::jit::load(path, at::kCPU));
    for (size_t i = 0; i < count; i++) outer.register_buffer(names[i], *tensors[i]);
    outer.define(source);
    outer.save(path);
  });
}

} // extern "C"
