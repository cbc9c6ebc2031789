// cuDNN 9 has removed the functions that Jittor's recurrent layers call. The calls have to
// compile, and they fail when they are reached.
#if defined(__cplusplus) && CUDNN_MAJOR >= 9
extern "C++" {
#define JITTOR_REMOVED(name) \
    template<class... A> static inline cudnnStatus_t name(A...) { \
        return CUDNN_STATUS_NOT_SUPPORTED; \
    }
JITTOR_REMOVED(cudnnSetRNNDescriptor_v6)
JITTOR_REMOVED(cudnnGetRNNParamsSize)
JITTOR_REMOVED(cudnnGetRNNWorkspaceSize)
JITTOR_REMOVED(cudnnGetRNNTrainingReserveSize)
JITTOR_REMOVED(cudnnGetRNNLinLayerMatrixParams)
JITTOR_REMOVED(cudnnGetRNNLinLayerBiasParams)
JITTOR_REMOVED(cudnnRNNForwardTraining)
JITTOR_REMOVED(cudnnRNNForwardInference)
JITTOR_REMOVED(cudnnRNNBackwardData)
JITTOR_REMOVED(cudnnRNNBackwardWeights)
#undef JITTOR_REMOVED
}
#endif
